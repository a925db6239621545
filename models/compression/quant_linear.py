"""Linear layers with 8-bit weights and 8-bit inputs (W8A8), in place of `nn.Linear`.

Weights are quantised once per output channel, inputs at every call per token; nothing is calibrated. See
`zoo.kernels.quant_linear` for the arithmetic. A layer takes a quarter of the memory of float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.kernels.quant_linear import quant_linear, quantize_weight


class QuantLinear(nn.Module):
    """y = quant_linear(x, weight, scale, bias): (..., in_features) -> (..., out_features).

    The codes and scales are buffers and do not learn; the bias does.
    """

    weight: Tensor
    weight_scale: Tensor

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("weight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(out_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> "QuantLinear":
        """The quantised copy of a layer (the layer itself stays as it is)."""
        layer = cls(linear.in_features, linear.out_features, bias=linear.bias is not None).to(linear.weight.device)
        layer.weight, layer.weight_scale = quantize_weight(linear.weight)
        if linear.bias is not None:
            layer.bias = nn.Parameter(linear.bias.detach().clone())
        return layer.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        return quant_linear(x, self.weight, self.weight_scale, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, int8"


def quantize_linears_(model: nn.Module, *, keep: Callable[[str, nn.Linear], bool] | None = None) -> list[str]:
    """Replace every `nn.Linear` of `model`, in place, by a `QuantLinear`; return their names.

    A layer that stands in several places stays one layer. Layers for which `keep(name, layer)` is true are left, and so
    are subclasses of `nn.Linear` (their owner reads the weight itself, as `nn.MultiheadAttention` does).

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> quantize_linears_(model, keep=lambda name, layer: layer.out_features == 2)
    ['0']
    """
    replaced: dict[nn.Module, QuantLinear] = {}
    names = []
    for parent_name, parent in list(model.named_modules()):
        for child_name, child in list(parent._modules.items()):
            name = f"{parent_name}.{child_name}" if parent_name else child_name
            if type(child) is not nn.Linear or (keep is not None and keep(name, child)):
                continue
            if child not in replaced:
                replaced[child] = QuantLinear.from_linear(child)
            setattr(parent, child_name, replaced[child])
            names.append(name)
    return names
