"""The same on a CPU: rows in blocks that stay in the cache, powers by Horner's rule, gradients written out."""

from itertools import pairwise

import torch
from torch import Tensor

BLOCK, GPU_BLOCK = 16 * 1024, 4 * 1024 * 1024
"""Values handled at a time: on a CPU 64 KiB of float32, and their ten products by coefficient, stay in its cache."""


def _blocks(x: Tensor, groups: int) -> list[Tensor]:
    """Views (rows, G, D / G) of x."""
    dim = x.shape[-1]
    flat = x.reshape(-1, groups, dim // groups)
    rows = max(1, (BLOCK if x.device.type == "cpu" else GPU_BLOCK) // dim)
    return list(flat.split(rows)) if len(flat) > rows else [flat]


def forward(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """x (..., D), numerator (G, m + 1), denominator (G, n) -> y like x, computed in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    a, b = _columns(numerator.to(wide)), _below(denominator.to(wide))
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    for part, out in zip(_blocks(x, len(numerator)), _blocks(y, len(numerator))):
        value = part.to(wide)
        out.copy_(_polynomial(value, a) / _polynomial(value.abs(), b))
    return y


def backward(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dx like x; da (G, m + 1) and db (G, n), summed in float32 or wider.

    dx = (P' / Q - P S / Q^2) dy with S = sign(x) sum_i i |b_i| |x|^(i-1);
    da_i = sum dy x^i / Q;   db_i = -sign(b_i) sum dy P |x|^i / Q^2.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    a, b = _columns(numerator.to(wide)), _below(denominator.to(wide))
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    groups = len(numerator)
    sums = torch.zeros(len(a) + len(b) - 1, groups, dtype=wide, device=x.device)
    for part, dy, out in zip(_blocks(x, groups), _blocks(grad, groups), _blocks(dx, groups)):
        value = part.to(wide)
        size = value.abs()
        (p, slope_p), (q, slope_q) = _with_slope(value, a), _with_slope(size, b)
        terms = torch.empty(len(sums), *value.shape, dtype=wide, device=x.device)
        each = terms.unbind(0)
        weight = torch.div(dy, q, out=each[0])
        for previous, term in pairwise(each[: len(a)]):
            torch.mul(previous, value, out=term)
        ratio = (p * weight).div_(q)
        slope_q = slope_q.copysign(value + 0.0)  # S is not negative, and -0.0 + 0.0 is 0.0
        out.copy_(torch.addcmul(slope_p * weight, ratio, slope_q, value=-1))
        for previous, term in pairwise((ratio, *each[len(a) :])):
            torch.mul(previous, size, out=term)
        sums += terms.sum((1, 3))
    da, db = sums[: len(a)].t(), sums[len(a) :].t()
    return dx, da.contiguous(), torch.where(denominator < 0, db, -db)


def _columns(coefficients: Tensor) -> list[Tensor]:
    """(G, n) as n of (G, 1)."""
    return list(coefficients[..., None].unbind(1))


def _below(denominator: Tensor) -> list[Tensor]:
    """The coefficients of Q = 1 + sum_i |b_gi| |x|^i."""
    ones = denominator.new_ones(len(denominator), 1)
    return [ones, *_columns(denominator.abs())]


def _polynomial(x: Tensor, coefficients: list[Tensor]) -> Tensor:
    """sum_i c_i x^i for x (rows, G, d), by Horner's rule."""
    *rest, total = coefficients
    for column in reversed(rest):
        total = torch.addcmul(column, total, x)
    return total


def _with_slope(x: Tensor, coefficients: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The same, and its derivative."""
    *rest, total = coefficients
    slope = None
    for column in reversed(rest):
        slope = total if slope is None else torch.addcmul(total, slope, x)
        total = torch.addcmul(column, total, x)
    return total, torch.zeros_like(total) if slope is None else slope
