"""max(x, bound) that still learns: below the bound, the gradient passes where it would raise x.

Ballé et al., arXiv 1611.01704; used for parameters that must stay positive and likelihoods that must not vanish.
"""

from typing import Any

import torch
from torch import Tensor


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        return gradient * ((x >= ctx.bound) | (gradient < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound); the gradient is zero only where x is below the bound and descent would lower it further."""
    if torch.compiler.is_exporting() or not x.requires_grad:
        return x.clamp_min(bound)
    result = _LowerBound.apply(x, bound)
    assert isinstance(result, Tensor)
    return result
