"""The path without a kernel: PyTorch's scaled_dot_product_attention, which compilers and exporters see through."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.attention.masks import Masks
from zoo.kernels.attention.reference import attention_reference
from zoo.kernels.dispatch import traced


def attention_aten(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None, visible: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """o (B, H, M, V); `causal` only for as many queries as keys and without bias and `visible` (alignment differs)."""
    mask = visible
    if bias is not None:
        mask = bias.to(q.dtype)
        if visible is not None:
            mask = mask.masked_fill(~visible, float("-inf"))
    grouped = q.shape[1] != k.shape[1]
    if mask is not None and mask.requires_grad and not grouped and _every_query_sees(mask):
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return (q * scale @ k.mT).add_(mask).softmax(-1) @ v
    if grouped and mask is None and not causal and q.shape[2] > 1:
        # the queries of heads that share their keys are queries of one head: each key is read once for all of them
        rows = q.reshape(*k.shape[:2], -1, q.shape[3])
        return F.scaled_dot_product_attention(rows, k, v, scale=scale).reshape(*q.shape[:3], v.shape[3])
    more = {"enable_gqa": True} if grouped else {}  # whose value must not depend on sizes that vary
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, **more)


def _every_query_sees(mask: Tensor) -> bool:
    """Whether no row is hidden as a whole, which a softmax must be guarded against, as SDPA does at some cost.

    On a CPU alone, where asking does not wait for a device, and in no traced code.
    """
    if mask.device.type != "cpu" or traced():
        return False
    return not bool(mask.isneginf().all(-1).any())


def without_padding(key_lengths: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """k and v with zeros behind the keys that count: a weight of zero does not hide what is not a number.

    On a CPU they stay as they are where nothing behind the shortest is infinite or not a number.
    """
    if k.device.type == "cpu" and not traced():
        shortest = int(key_lengths.min()) if len(key_lengths) else 0
        if all(x.detach()[:, :, shortest:].sum().isfinite() for x in (k, v)):
            return k, v
    padding = torch.arange(k.shape[2], device=k.device) >= key_lengths[:, None]
    return k.masked_fill(padding[:, None, :, None], 0.0), v.masked_fill(padding[:, None, :, None], 0.0)


def attention_varlen_aten(q: Tensor, k: Tensor, v: Tensor, masks: Masks, scale: float) -> tuple[Tensor, Tensor]:
    """o (1, H, M, V) and lse (1, H, M) of packed sequences.

    One sequence after the other, so that the work grows with the sum of their squares and not the square of their sum.
    Where the code is traced, and bounds have no values, one mask hides the sequences from one another.
    """
    assert masks.cu_queries is not None
    assert masks.cu_keys is not None
    dtype = q.dtype
    q, k, v = in_float32(q, k, v)
    if traced():
        visible = masks.visible(q.shape[2], k.shape[2], q.device)
        whole = attention_reference(q, k, v, visible=visible, scale=scale)
        return whole[0].to(dtype), whole[1]
    alone = Masks(masks.window)
    parts = []
    for (m, m_end), (n, n_end) in zip(pairwise(masks.cu_queries.tolist()), pairwise(masks.cu_keys.tolist())):
        visible = alone.visible(m_end - m, n_end - n, q.device)
        its = (q[:, :, m:m_end], k[:, :, n:n_end], v[:, :, n:n_end])
        parts.append(attention_reference(*its, visible=visible, scale=scale))
    o, lse = zip(*parts)
    return torch.cat(o, 2).to(dtype), torch.cat(lse, 2)


def in_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """16 bits as float32: a log-sum-exp of 16 bits, by which parts merge, would lose what their outputs keep."""
    return tuple(x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors)
