"""W8A8: a linear layer on 8-bit integers, as plain PyTorch.

    weight  w_oi = q_oi s_o,   s_o = max_i |w_oi| / 127.5     once, per output channel
    input   x_ti ~ p_ti r_t,   r_t = max_i |x_ti| / 127.5     at every call, per token
    y_to = r_t s_o sum_i p_ti q_oi + bias_o                   the sum is exact in int32

The conventions (127.5, codes in [-128, 127], multiplication by 1/scale, scale at least the float32 epsilon) are those
of torchao's dynamic int8 linear, so that its weights can be used as they are. Halves round to even.
"""

import torch
from torch import Tensor

STEPS = 127.5
SMALLEST_SCALE = torch.finfo(torch.float32).eps


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes (..., I) and float32 scales (..., 1) of the rows of `values` (..., I)."""
    wide = values if values.dtype == torch.float64 else values.float()
    scale = (wide.abs().amax(-1, keepdim=True) / STEPS).clamp(min=SMALLEST_SCALE)
    codes = (wide * (1.0 / scale)).round().clamp(-128, 127)
    return codes.to(torch.int8), scale


def quant_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., I), weight int8 (O, I), scale (O,), bias (O,) -> (..., O); sums are exact, in float64."""
    codes, token_scale = quantize_rows(x)
    total = codes.double() @ weight.double().t()
    y = total * token_scale * scale
    return (y if bias is None else y + bias).to(x.dtype)
