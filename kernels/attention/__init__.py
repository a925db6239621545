"""Softmax attention with everything that a vision backbone asks of it, in one function.

On a GPU a fused Triton kernel (forward.py, backward.py: FlashAttention-2, arXiv 2307.08691) runs, without bias and mask
where it was measured to pay (measured.py); on a CPU, and in every exported graph, PyTorch's own operations (aten.py).
reference.py is the mathematics.
"""

import math
from typing import Any

import torch
from torch import Tensor

from zoo.kernels.attention.aten import attention_aten, attention_varlen_aten, in_float32, without_padding
from zoo.kernels.attention.masks import Masks
from zoo.kernels.attention.op import attention_op
from zoo.kernels.attention.reference import attention_reference, merge
from zoo.kernels.dispatch import autocast_to, exporting, runs_triton, traced
from zoo.kernels.measured import kernel_pays

__all__ = ["attention", "attention_varlen", "merge"]

Bounds = tuple[int, int]

MAX_CHANNELS = 256
"""The kernel holds a row of q in registers; wider heads take PyTorch's own operation."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    *,
    window: Bounds | None = None,
    key_lengths: Tensor | None = None,
    block_mask: Tensor | None = None,
    block_size: Bounds | None = None,
    unified_max: float | None = None,
    return_lse: bool = False,
) -> Any:
    """softmax(scale q k^T + bias) v over the keys that a query sees.

    q (B, H, M, D), k (B, K, N, D), v (B, K, N, V): H a multiple of K, any strides with the last dimension contiguous,
    so that the parts of a packed (B, N, 3, H, D) projection go in without a copy. bias broadcasts to (B, H, M, N) and
    receives a gradient. scale: D ** -0.5 by default.

    causal, window (left, right; -1 is open): query i sees key j iff -left <= j - (i + N - M) <= right, so that the last
    query stands on the last key; causal sets right = 0. key_lengths (B,): keys at or beyond it are hidden.
    block_mask (rows, columns), (H, rows, columns) or (B, H, rows, columns) bool with block_size (queries, keys per
    tile): false hides a tile, and a hidden tile costs no time.

    unified_max: about where the largest scores lie, if that is known (FlashDecoding++, arXiv 2311.01282). The kernel
    then takes exponentials of what scores exceed it by, instead of waiting for each row's maximum; a row for which that
    leaves the range of the numbers goes by its own maximum. It changes no result, and PyTorch's operation ignores it.

    Returns o (B, H, M, V), and with return_lse also lse (B, H, M) (natural logarithm, in float32 or wider; -inf and
    o = 0 for a query that sees no key); both are differentiable, and `merge` joins such pairs over disjoint keys.

    Raises ValueError where shapes do not fit.
    """
    _check(q, k, v, bias, block_mask, block_size)
    if unified_max is not None and not abs(unified_max) < math.inf:
        raise ValueError(f"unified_max must be a finite number, not {unified_max}")
    if key_lengths is not None and key_lengths.shape != q.shape[:1]:
        raise ValueError(f"key_lengths must be ({q.shape[0]},), one for each image, not {tuple(key_lengths.shape)}")
    hides = window is not None or key_lengths is not None or block_mask is not None
    plain = bias is None and not (hides or return_lse) and (q.shape[2] == k.shape[2] or not causal)
    if plain and k.shape[2] and not _kernel_runs_on(q, k, v):
        return attention_aten(q, k, v, bias=None, visible=None, causal=causal, scale=scale)
    q, k, v = autocast_to(q, k, v)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if block_mask is not None:
        block_mask = block_mask[(None,) * (4 - block_mask.dim())]
    masks = Masks(_bounds(causal, window), key_lengths, block_mask, block_size or (1, 1))
    if _kernel_runs_on(q, k, v) and (not plain or kernel_pays("attention", q, _sizes(q, k, v, causal))):
        return _run_kernel(q, k, v, bias, masks, scale, return_lse, unified_max)
    visible = None if plain else masks.visible(q.shape[2], k.shape[2], q.device)
    if key_lengths is not None:
        k, v = without_padding(key_lengths, k, v)
    if return_lse or k.shape[2] == 0:
        o, lse = attention_reference(*in_float32(q, k, v), bias=bias, visible=visible, scale=scale)
        return (o.to(q.dtype), lse) if return_lse else o.to(q.dtype)
    return attention_aten(q, k, v, bias=bias, visible=visible, causal=causal and plain, scale=scale)


def attention_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    causal: bool = False,
    scale: float | None = None,
    *,
    max_seqlen_q: int | None = None,
    window: Bounds | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`attention` within each of several sequences packed behind each other.

    q (queries, H, D), k (keys, K, D), v (keys, K, V); sequence s owns rows cu_seqlens_q[s] to cu_seqlens_q[s + 1], and
    keys likewise (int32, from 0 to the total; empty sequences are allowed). max_seqlen_q: longest sequence of queries,
    if known; it saves idle programs.

    Raises ValueError where shapes do not fit, and on a CPU where bounds do not: a GPU is not waited for, and rows of no
    sequence may hold anything there.

    Returns o (queries, H, V), and with return_lse also lse (queries, H) in float32 or wider.
    """
    if cu_seqlens_q.shape != cu_seqlens_k.shape or cu_seqlens_q.dim() != 1:
        raise ValueError(
            f"cu_seqlens_q and cu_seqlens_k must both be (sequences + 1,), not {tuple(cu_seqlens_q.shape)} and "
            f"{tuple(cu_seqlens_k.shape)}"
        )
    cu_seqlens_q = _checked_bounds("cu_seqlens_q", cu_seqlens_q, q.shape[0])
    cu_seqlens_k = _checked_bounds("cu_seqlens_k", cu_seqlens_k, k.shape[0])
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in autocast_to(q, k, v))
    _check(q, k, v, None, None, None)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    masks = Masks(
        _bounds(causal, window), cu_queries=cu_seqlens_q, cu_keys=cu_seqlens_k, longest=max_seqlen_q or q.shape[2]
    )
    if _kernel_runs_on(q, k, v):
        o, lse = _run_kernel(q, k, v, None, masks, scale, True)
    else:
        o, lse = attention_varlen_aten(q, k, v, masks, scale)
    o, lse = o[0].transpose(0, 1), lse[0].transpose(0, 1)
    return (o, lse) if return_lse else o


def _sizes(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> dict[str, int]:
    """A call as `measured.py` compares it."""
    batch, heads, queries, channels = q.shape
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    return {
        **{"batch": batch, "heads": heads, "kv_heads": k.shape[1], "q_len": queries, "kv_len": k.shape[2]},
        **{"head_dim": channels, "causal": int(causal), "backward": int(learns)},
    }


def _bounds(causal: bool, window: Bounds | None) -> Bounds:
    left, right = window or (-1, -1)
    return (left, 0) if causal else (left, right)


def _kernel_runs_on(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return runs_triton(q, k, v) and not exporting() and max(q.shape[-1], v.shape[-1]) <= MAX_CHANNELS


def _run_kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    masks: Masks,
    scale: float,
    return_lse: bool,
    unified_max: float | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    if bias is not None:
        bias = bias[(None,) * (4 - bias.dim())]
        bias = bias if bias.dtype in (q.dtype, torch.float32) else bias.to(q.dtype)
    packed = (masks.cu_queries, masks.cu_keys)
    settings = (scale, masks.window, masks.block_size, masks.longest, unified_max)
    o, lse = attention_op(q, k, v, bias, masks.key_lengths, masks.block_mask, *packed, *settings)
    return (o, lse) if return_lse else o


def _check(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, block_mask: Tensor | None, block_size: Bounds | None
) -> None:
    """Raise a ValueError that names the first shape that does not fit."""
    if not q.dim() == k.dim() == v.dim() == 4:
        raise ValueError(f"q, k, v must be (batch, heads, length, channels), not {q.dim()}-, {k.dim()}-, {v.dim()}-d")
    if q.shape[-1] != k.shape[-1] or q.shape[0] != k.shape[0] or k.shape[:3] != v.shape[:3]:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} do not fit together")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads cannot share {k.shape[1]} key heads: need a multiple")
    full = (*q.shape[:3], k.shape[2])
    if bias is not None:
        if not bias.is_floating_point():
            raise ValueError(f"bias must be floating point, not {bias.dtype}: use block_mask or -inf to hide keys")
        _check_broadcast("bias", bias.shape, full)
    if (block_mask is None) != (block_size is None):
        raise ValueError("block_mask and block_size (queries, keys per tile) go together")
    if block_mask is not None and block_size is not None:
        tiles = (math.ceil(full[2] / block_size[0]), math.ceil(full[3] / block_size[1]))
        if block_mask.shape[-2:] != tiles:
            raise ValueError(
                f"block_mask must end in {tiles} tiles of {block_size}, not {tuple(block_mask.shape[-2:])}"
            )
        _check_broadcast("block_mask", (*block_mask.shape[:-2], 1, 1), full)


def _checked_bounds(name: str, bounds: Tensor, rows: int) -> Tensor:
    """The bounds, unless a ValueError is raised because sequences do not follow each other from row 0 to the last.

    Where values cannot be asked for, bounds stay within the rows at least.
    """
    if bounds.shape[0] < 2:
        raise ValueError(f"{name} must hold the bounds of one sequence or more, not {bounds.shape[0]} numbers")
    if bounds.device.type != "cpu" or traced():
        return bounds.clamp(0, rows)
    if bounds[0] != 0 or bounds[-1] != rows or bool((bounds.diff() < 0).any()):
        raise ValueError(f"{name} must go up from 0 to {rows}, the number of rows, not {bounds.tolist()}")
    return bounds


def _check_broadcast(name: str, shape: tuple[int, ...], full: tuple[int, ...]) -> None:
    aligned = full[len(full) - len(shape) :]
    if len(shape) > 4 or any(size not in (1, target) for size, target in zip(shape, aligned)):
        raise ValueError(f"{name} {tuple(shape)} does not broadcast to (B, H, M, N) = {tuple(full)}")
