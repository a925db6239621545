"""The group-rational function of KAT (Yang and Wang, ICLR 2025), as plain PyTorch.

    y = P / Q,   P = sum_{i=0..m} a_gi x^i,   Q = 1 + sum_{i=1..n} |b_gi| |x|^i,   group g = channel // (D / groups)

The sub-gradient of |.| at 0 is +1, for x and for b, as in the authors' kernels: with 0 (PyTorch's choice) denominators
that start at 0 would never learn. The authors' plain PyTorch code uses x^i in the denominator and differs for x < 0.
"""

import torch
from torch import Tensor


def absolute(x: Tensor) -> Tensor:
    """|x| with derivative +1 at 0."""
    return torch.where(x < 0, -x, x)


def rational(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """x (..., D), numerator (G, m + 1), denominator (G, n) -> (..., D)."""
    groups = numerator.shape[0]
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    size = absolute(grouped)
    top = torch.zeros_like(grouped)
    for column in reversed(numerator.unbind(1)):
        top = top * grouped + column[:, None]
    bottom = torch.zeros_like(grouped)
    for column in reversed(denominator.unbind(1)):
        bottom = (bottom + absolute(column)[:, None]) * size
    return (top / (1 + bottom)).reshape(x.shape)
