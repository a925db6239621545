"""W8A8 linear layers: 8-bit weights per output channel, 8-bit inputs per token, exact integer sums.

codes, scale = quantize_weight(linear.weight)
y = quant_linear(x, codes, scale, linear.bias)
"""

from functools import cache

import torch
from torch import Tensor

from zoo.kernels.dispatch import autocast_to, exporting, runs_triton
from zoo.kernels.quant_linear.reference import quantize_rows

__all__ = ["quant_linear", "quantize_weight"]

LONGEST_SUM = 131_071
"""Products of two int8 codes that int32 can add up without overflow: (2^31 - 1) / 128^2."""


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes (O, I) and float32 scales (O,) of a weight (O, I): w ~ codes * scales[:, None].

    >>> codes, scale = quantize_weight(torch.tensor([[0.5, -1.0], [0.0, 0.0]]))
    >>> (codes * scale[:, None]).round(decimals=2).tolist()
    [[0.5, -1.0], [0.0, 0.0]]
    """
    if weight.ndim != 2 or not weight.shape[1] or not weight.is_floating_point():
        raise ValueError(f"quantize_weight: {weight.dtype} {tuple(weight.shape)}, expected floats (O, I), I above 0")
    codes, scale = quantize_rows(weight.detach())
    return codes, scale.squeeze(-1).float()


def quant_linear(x: Tensor, weight_int8: Tensor, weight_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias with x quantised to 8 bits per token and W given as 8-bit codes, summed exactly in int32.

    Relative error about 1 % on Gaussian data. The gradient for x is straight-through, dx = dy W with the dequantised W;
    the bias has its own; codes and scales have none. Under autocast x is cast as for a linear layer. torch.export keeps
    the integer product (aten._int_mm); ONNX gets the same codes multiplied in floating point.

    Args:
        x: (..., I), any floating dtype; the result has it too.
        weight_int8, weight_scale: (O, I) int8 and (O,), from `quantize_weight`.
        bias: (O,) or None, of any floating dtype, as weight_scale.
    Returns:
        (..., O).
    Raises:
        ValueError: shapes that do not fit, no features, integers for x, scales or bias, or rows too long for int32 sums
            (I > 131,071).
    """
    _check(x, weight_int8, weight_scale, bias)
    (x,) = autocast_to(x)
    if torch.onnx.is_in_onnx_export():
        return _float_product(x, weight_int8, weight_scale, bias)
    if exporting():
        return _integer_product(x, weight_int8, weight_scale, bias)
    flat = torch.ops.zoo.quant_linear(x.reshape(-1, x.shape[-1]), weight_int8, weight_scale, bias)
    return flat.reshape(*x.shape[:-1], weight_int8.shape[0])


def _check(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
    if weight.dtype != torch.int8 or weight.ndim != 2:
        raise ValueError(f"quant_linear: weight_int8 is {weight.dtype} {tuple(weight.shape)}, expected int8 (O, I)")
    outputs, inputs = weight.shape
    features = x.shape[-1] if x.ndim else 0
    if not features or features != inputs:
        raise ValueError(f"quant_linear: x has {features} features, the weight expects {inputs}, at least 1")
    kinds = [value.dtype for value in (x, scale, bias) if value is not None]
    if not all(kind.is_floating_point for kind in kinds):
        raise ValueError(f"quant_linear: x, weight_scale and bias are {', '.join(map(str, kinds))}, not floating point")
    if scale.shape != (outputs,) or (bias is not None and bias.shape != (outputs,)):
        raise ValueError(f"quant_linear: weight_scale and bias must have shape ({outputs},)")
    if inputs > LONGEST_SUM:
        raise ValueError(f"quant_linear: rows of {inputs} codes overflow int32, at most {LONGEST_SUM}")


@torch.library.custom_op("zoo::quant_linear", mutates_args=())
def _operator(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    if runs_triton(x, weight):
        from zoo.kernels.quant_linear.triton import launch

        return launch(x, weight, scale, bias)
    return _integer_product(x, weight, scale, bias)


@_operator.register_fake
def _(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _save(ctx, inputs, output) -> None:
    _, weight, scale, bias = inputs
    ctx.save_for_backward(weight, scale)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx, grad: Tensor):
    weight, scale = ctx.saved_tensors
    dx = (grad * scale.to(grad.dtype)) @ weight.to(grad.dtype) if ctx.needs_input_grad[0] else None
    dbias = grad.sum(0).to(ctx.bias_dtype) if ctx.bias_dtype and ctx.needs_input_grad[3] else None
    return dx, None, None, dbias


_operator.register_autograd(_backward, setup_context=_save)


def _integer_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """On ATen's integer matrix product."""
    codes, token_scale = quantize_rows(x)
    total = _int_mm(codes.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[0])
    y = total.to(token_scale.dtype).mul_(token_scale).mul_(scale)
    return (y if bias is None else y.add_(bias)).to(x.dtype)


def _float_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The same codes multiplied in floating point, for ONNX, which has no translation of aten._int_mm."""
    codes, token_scale = quantize_rows(x)
    y = (codes.to(token_scale.dtype) @ weight.to(token_scale.dtype).t()) * token_scale * scale
    return (y if bias is None else y + bias).to(x.dtype)


def _int_mm(left: Tensor, right: Tensor) -> Tensor:
    """left (M, K) right^T (N, K) -> (M, N) int32, exactly."""
    if exporting() or _int_mm_is_exact(left.device.type):
        return torch._int_mm(left, right.t())
    # float32 holds every integer up to 2^24: 1024 products of two codes
    parts = zip(left.split(1024, dim=1), right.split(1024, dim=1))
    return torch.stack([(a.float() @ b.float().t()).to(torch.int32) for a, b in parts]).sum(0, dtype=torch.int32)


@cache
def _int_mm_is_exact(device: str) -> bool:
    """Some CPUs without dot-product instructions saturate sums of neighbouring products at 16 bits."""
    ones = torch.full((32, 64), 127, dtype=torch.int8, device=device)
    return bool((torch._int_mm(ones, ones.t()) == 64 * 127 * 127).all())
