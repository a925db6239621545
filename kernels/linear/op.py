"""Linear attention as the PyTorch operation `zoo::linear_attention`, with its shape rule and its gradient.

On a GPU, and in Triton's interpreter, the fused kernels; elsewhere the matrix of weights, in float32 or wider.
"""

from typing import Any, cast

import torch
from torch import Tensor

from zoo.kernels.dispatch import exporting, runs_triton
from zoo.kernels.linear.reference import Kind, attend, attend_backward

WIDEST = 64
"""Channels and values that the kernels hold in one tile."""
DTYPES = (torch.float32, torch.bfloat16)
"""float16 stays with ATen: weights are not bounded, and overflow it."""


def runs_kernel(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the fused kernels take this call."""
    if not runs_triton(q, k, v, dtypes=DTYPES) or exporting():
        return False
    return q.dtype == k.dtype == v.dtype and max(k.shape[-1], v.shape[-1]) <= WIDEST


@torch.library.custom_op("zoo::linear_attention", mutates_args=())
def linear_attention_op(q: Tensor, k: Tensor, v: Tensor, kind: str, causal: bool, eps: float) -> tuple[Tensor, Tensor]:
    """y (B, H, M, V) like v, and z (B, H, M), the sums of the weights plus eps, in float32 or wider."""
    if runs_kernel(q, k, v):
        from zoo.kernels.linear import launch

        return launch.forward(q, k, v, cast(Kind, kind), causal, eps)
    wide_q, wide_k, wide_v = _wide(q, k, v)
    y, z = attend(wide_q, wide_k, wide_v, kind=cast(Kind, kind), causal=causal, eps=eps)
    return y.to(v.dtype).contiguous(), z.contiguous()


@linear_attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, kind: str, causal: bool, eps: float) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(q.dtype, torch.float32)
    return v.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=wide)


@torch.library.custom_op("zoo::linear_attention_backward", mutates_args=())
def linear_attention_backward_op(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, z: Tensor, kind: str, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv."""
    if runs_kernel(q, k, v):
        from zoo.kernels.linear import launch

        return launch.backward(dy, q, k, v, y, z, cast(Kind, kind), causal)
    dy, wide_q, wide_k, wide_v, y = _wide(dy, q, k, v, y)
    grads = attend_backward(dy, wide_q, wide_k, wide_v, y, z, kind=cast(Kind, kind), causal=causal)
    dq, dk, dv = (grad.to(x.dtype).contiguous() for grad, x in zip(grads, (q, k, v)))
    return dq, dk, dv


@linear_attention_backward_op.register_fake
def _(dy: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.kind, ctx.causal, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, *output)


def _backward(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return *linear_attention_backward_op(dy, *ctx.saved_tensors, ctx.kind, ctx.causal), None, None, None


linear_attention_op.register_autograd(_backward, setup_context=_save)
