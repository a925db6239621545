"""The same on a CPU: rows in blocks that stay in the cache, powers by Horner's rule, gradients written out."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 32 * 1024
"""Values handled at a time (128 KiB of float32)."""


def _blocks(x: Tensor, groups: int) -> list[Tensor]:
    """Views (rows, G, D / G) of x."""
    dim = x.shape[-1]
    flat = x.reshape(-1, groups, dim // groups)
    return list(flat.split(max(1, BLOCK // dim)))


def forward(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """x (..., D), numerator (G, m + 1), denominator (G, n) -> y like x, computed in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    a, b = numerator.to(wide), denominator.to(wide).abs()
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    for part, out in zip(_blocks(x, len(a)), _blocks(y, len(a))):
        value = part.to(wide)
        out.copy_(_horner(value, a).div_(_bottom(value.abs(), b)))
    return y


def backward(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dx like x; da (G, m + 1) and db (G, n), summed in float32 or wider.

    dx = (P' / Q - P S / Q^2) dy with S = sign(x) sum_i i |b_i| |x|^(i-1);
    da_i = sum dy x^i / Q;   db_i = -sign(b_i) sum dy P |x|^i / Q^2.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    a, b = numerator.to(wide), denominator.to(wide).abs()
    slope_a, slope_b = (coefficients * torch.arange(1, coefficients.shape[1] + 1, device=x.device, dtype=wide)
                        for coefficients in (a[:, 1:], b))  # fmt: skip
    da, db = torch.zeros_like(a), torch.zeros_like(b)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    groups = len(a)
    for part, dy, out in zip(_blocks(x, groups), _blocks(grad, groups), _blocks(dx, groups)):
        value, size = part.to(wide), part.to(wide).abs()
        weight = dy.to(wide) / _bottom(size, b)
        ratio = _horner(value, a) * weight / _bottom(size, b)
        slope = torch.where(value < 0, -ratio, ratio) * _horner(size, slope_b)
        out.copy_(_horner(value, slope_a).mul_(weight).sub_(slope))
        for i in range(a.shape[1]):
            da[:, i] += weight.sum((0, 2))
            weight = weight * value
        for i in range(b.shape[1]):
            ratio = ratio * size
            db[:, i] -= ratio.sum((0, 2))
    return dx, da, torch.where(denominator < 0, -db, db)


def _horner(x: Tensor, coefficients: Tensor) -> Tensor:
    """sum_i c_gi x^i for x (rows, G, d); 0 without coefficients."""
    columns = [column[:, None] for column in coefficients.unbind(1)] or [coefficients.new_zeros(1, 1)]
    total = columns[-1].expand(x.shape).clone()
    for column in reversed(columns[:-1]):
        torch.addcmul(column, total, x, out=total)
    return total


def _bottom(size: Tensor, b: Tensor) -> Tensor:
    """Q = 1 + sum_i |b_gi| |x|^i."""
    return _horner(size, F.pad(b, (1, 0), value=1.0))
