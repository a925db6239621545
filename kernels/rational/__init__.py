"""Activation functions that learn: a ratio of polynomials for each group of channels.

y = rational(x, numerator, denominator)
"""

import torch
from torch import Tensor

from zoo.kernels.dispatch import exporting, runs_triton
from zoo.kernels.rational import aten, reference

__all__ = ["rational"]

MOST_COEFFICIENTS = 8
"""Above and below the line, in the kernel: what the ahead-of-time table was compiled with."""


def rational(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """y = (a_0 + a_1 x + ... + a_m x^m) / (1 + |b_1| |x| + ... + |b_n| |x|^n), coefficients by group of channels.

    Differentiable in all three, with derivative +1 of |.| at 0. Computed in float32 or wider whatever the dtype of x.
    The kernel takes up to eight coefficients above and eight below the line; with more ATen computes.

    Args:
        x: (..., D); channel c belongs to group c // (D / G).
        numerator: (G, m + 1), a_0 first.
        denominator: (G, n), b_1 first.
    Returns:
        y like x, in its dtype.
    Raises:
        ValueError: D is not a multiple of G, or 0, or the two have other numbers of groups, or none.
    """
    if numerator.ndim != 2 or denominator.ndim != 2 or numerator.shape[0] != denominator.shape[0]:
        raise ValueError(f"rational: coefficients {tuple(numerator.shape)} and {tuple(denominator.shape)}")
    groups, channels = numerator.shape[0], x.shape[-1] if x.ndim else 0
    if not groups or not numerator.shape[1]:
        raise ValueError(f"rational: numerator {tuple(numerator.shape)}, expected (G, m + 1) with at least one group")
    if not channels or channels % groups:
        raise ValueError(f"rational: {channels} channels do not divide into {groups} groups")
    if exporting():
        wide = torch.promote_types(x.dtype, torch.float32)
        return reference.rational(x.to(wide), numerator.to(wide), denominator.to(wide)).to(x.dtype)
    return torch.ops.zoo.rational(x, numerator, denominator)


def _runs_kernel(x: Tensor, numerator: Tensor, denominator: Tensor) -> bool:
    return max(numerator.shape[1], denominator.shape[1]) <= MOST_COEFFICIENTS and runs_triton(x, numerator, denominator)


@torch.library.custom_op("zoo::rational", mutates_args=())
def _rational(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    if _runs_kernel(x, numerator, denominator):
        from zoo.kernels.rational import triton

        return triton.forward(x, numerator, denominator)
    return aten.forward(x, numerator, denominator)


@_rational.register_fake
def _(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("zoo::rational_backward", mutates_args=())
def _rational_backward(
    grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    if _runs_kernel(x, numerator, denominator):
        from zoo.kernels.rational import triton

        return triton.backward(grad, x, numerator, denominator)
    return aten.backward(grad, x, numerator, denominator)


@_rational_backward.register_fake
def _(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    return dx, torch.empty_like(numerator, dtype=wide), torch.empty_like(denominator, dtype=wide)


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor):
    x, numerator, denominator = ctx.saved_tensors
    dx, da, db = torch.ops.zoo.rational_backward(grad, x, numerator, denominator)
    return dx, da.to(numerator.dtype), db.to(denominator.dtype)


_rational.register_autograd(_backward, setup_context=_save)
