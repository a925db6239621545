"""The fused kernel as the PyTorch operation `zoo::attention`, with its shape rule and its gradient.

On CPU tensors the operation computes the reference, or the kernel itself where Triton's interpreter is on.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.kernels.attention.masks import Masks
from zoo.kernels.attention.reference import attention_backward_reference, attention_reference
from zoo.kernels.dispatch import runs_triton


@torch.library.custom_op("zoo::attention", mutates_args=())
def attention_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    key_lengths: Tensor | None,
    block_mask: Tensor | None,
    cu_queries: Tensor | None,
    cu_keys: Tensor | None,
    scale: float,
    window: Sequence[int],
    block_size: Sequence[int],
    longest: int,
    unified_max: float | None,
) -> tuple[Tensor, Tensor]:
    """o (B, H, M, V) with the memory of (B, M, H, V), and lse (B, H, M) float32."""
    masks = _masks(window, key_lengths, block_mask, block_size, cu_queries, cu_keys, longest)
    if runs_triton(q, k, v):
        from zoo.kernels.attention.launch import forward

        return forward(q, k, v, bias, masks, scale, unified_max)
    visible = masks.visible(q.shape[2], k.shape[2], q.device)
    o, lse = attention_reference(q, k, v, bias=bias, visible=visible, scale=scale, unified_max=unified_max)
    return _token_major(o), lse.float().contiguous()


@attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    batch, heads, queries, _channels = q.shape
    return _empty_token_major(q, v.shape[-1]), q.new_empty(batch, heads, queries, dtype=torch.float32)


@torch.library.custom_op("zoo::attention_backward", mutates_args=())
def attention_backward_op(
    do: Tensor,
    dlse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    key_lengths: Tensor | None,
    block_mask: Tensor | None,
    cu_queries: Tensor | None,
    cu_keys: Tensor | None,
    scale: float,
    window: Sequence[int],
    block_size: Sequence[int],
    longest: int,
    need_dbias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv, and dbias (empty unless needed)."""
    masks = _masks(window, key_lengths, block_mask, block_size, cu_queries, cu_keys, longest)
    if runs_triton(q, k, v):
        from zoo.kernels.attention.launch import backward

        return backward(do, dlse, q, k, v, o, lse, bias, masks, scale, need_dbias)
    visible, dtype = masks.visible(q.shape[2], k.shape[2], q.device), q.dtype
    do, q, k, v, o = (x.float() for x in (do, q, k, v, o))
    *grads, ds = attention_backward_reference(do, dlse, q, k, v, o, lse, bias=bias, visible=visible, scale=scale)
    dq, dk, dv = (_token_major(x.to(dtype)) for x in grads)
    dbias = ds.sum_to_size(bias.shape).to(bias.dtype) if bias is not None and need_dbias else q.new_empty(0)
    return dq, dk, dv, dbias.contiguous()


@attention_backward_op.register_fake
def _(do: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, *rest: Any) -> Any:
    bias, *_, need_dbias = rest
    dbias = bias.new_empty(bias.shape) if need_dbias else q.new_empty(0)
    return *(_empty_token_major(x, x.shape[-1]) for x in (q, k, v)), dbias


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, key_lengths, block_mask, cu_queries, cu_keys, *ctx.settings, _ = inputs
    ctx.save_for_backward(q, k, v, *output, bias, key_lengths, block_mask, cu_queries, cu_keys)


def _backward(ctx: Any, do: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
    need_dbias = ctx.needs_input_grad[3]
    dq, dk, dv, dbias = attention_backward_op(do, dlse, *ctx.saved_tensors, *ctx.settings, need_dbias)
    return dq, dk, dv, dbias if need_dbias else None, *[None] * 9


attention_op.register_autograd(_backward, setup_context=_setup_context)


def _masks(
    window: Sequence[int],
    key_lengths: Tensor | None,
    block_mask: Tensor | None,
    block_size: Sequence[int],
    cu_queries: Tensor | None,
    cu_keys: Tensor | None,
    longest: int,
) -> Masks:
    """What the kernels read by a pointer lies behind each other in int32."""
    lengths, queries, keys = (
        None if x is None else x.to(torch.int32).contiguous() for x in (key_lengths, cu_queries, cu_keys)
    )
    return Masks((window[0], window[1]), lengths, block_mask, (block_size[0], block_size[1]), queries, keys, longest)


def _token_major(x: Tensor) -> Tensor:
    """The same values with the memory of (B, length, H, D), as the next projection reads them."""
    return x.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)


def _empty_token_major(like: Tensor, channels: int) -> Tensor:
    batch, heads, length, _ = like.shape
    return like.new_empty(batch, length, heads, channels).transpose(1, 2)
