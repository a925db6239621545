"""Softmax attention as it is written on paper: the twin that every faster path is compared with.

    s_ij = scale <q_i, k_j> + bias_ij        for the keys j that query i can see
    lse_i = log sum_j exp(s_ij)              natural logarithm
    o_i = sum_j exp(s_ij - lse_i) v_j

Every exponential is taken of s_ij - m_i, which changes nothing but keeps it in range: m_i is the row's maximum, or, for
all rows alike, a unified maximum phi that is known beforehand (FlashDecoding++, arXiv 2311.01282); a row whose sum of
exp(s_ij - phi) leaves `SAFE_SUMS` goes by its own maximum after all.

A query that sees no key has o_i = 0, lse_i = -inf and no gradient. Shapes: B batch, H query heads, K key heads (each
serves H / K query heads in a row), M queries, N keys, D channels.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SAFE_SUMS = (-75, 64)
"""Bounds of log2 sum_j exp(s_ij - phi): beside a sum above 2^-75 addends that became zero (below 2^-126) do not count,
and below 2^64 there is room for products with v."""

HALF_SUMS = (-14, 15)
"""The same where exp(s_ij - phi) is kept in float16, the lower one for each key: an addend is off by 2^-25 at the most,
so that their sum is by 2^-11 of itself, as float16 is anyway."""


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    visible: Tensor | None = None,
    scale: float,
    unified_max: float | None = None,
) -> tuple[Tensor, Tensor]:
    """q (B, H, M, D), k (B, K, N, D), v (B, K, N, V) -> o (B, H, M, V), lse (B, H, M); keeps the precision of `q`.

    bias and visible (bool) broadcast to (B, H, M, N). unified_max: phi.
    """
    if k.shape[2] == 0:
        k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        bias, visible = None, torch.zeros(1, dtype=torch.bool, device=q.device)
    v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    scores = _scores(q, k, bias, visible, scale)
    top = scores.detach().amax(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).min)
    if unified_max is not None:
        under = (scores.detach() - unified_max).exp().sum(-1, keepdim=True)
        half = scores.dtype == torch.float16
        low, high = (2.0**bound for bound in (HALF_SUMS if half else SAFE_SUMS))
        low *= scores.shape[-1] if half else 1
        top = torch.where((low < under) & (under < high), unified_max, top)
    weights = (scores - top).exp()
    total = weights.sum(-1, keepdim=True)
    seen = total > 0
    total = torch.where(seen, total, 1.0)
    lse = torch.where(seen, top + total.log(), -math.inf).squeeze(-1)
    return (weights / total).to(v.dtype) @ v, lse


def attention_backward_reference(
    do: Tensor,
    dlse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    *,
    bias: Tensor | None = None,
    visible: Tensor | None = None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients dq, dk, dv and dscores (B, H, M, N) in closed form; dbias is dscores summed over what was broadcast.

    p_ij = exp(s_ij - lse_i), delta_i = <do_i, o_i> - dlse_i, ds_ij = p_ij (<do_i, v_j> - delta_i);
    dq_i = scale sum_j ds_ij k_j, dk_j = scale sum_i ds_ij q_i, dv_j = sum_i p_ij do_i.
    """
    heads = (k.shape[1], q.shape[1] // k.shape[1])
    p = (_scores(q, k, bias, visible, scale) - lse.masked_fill(lse == -math.inf, math.inf).unsqueeze(-1)).exp()
    delta = (do * o).sum(-1) - dlse
    ds = p * (do @ v.repeat_interleave(heads[1], dim=1).mT - delta.unsqueeze(-1))
    dq = scale * ds @ k.repeat_interleave(heads[1], dim=1)
    dk = (scale * ds.mT @ q).unflatten(1, heads).sum(2)
    dv = (p.mT @ do).unflatten(1, heads).sum(2)
    return dq, dk, dv, ds


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, visible: Tensor | None, scale: float) -> Tensor:
    scores = (q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT) * scale
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    return scores if visible is None else scores.masked_fill(~visible, -math.inf)


def merge(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join attention over disjoint sets of keys: parts of (o (..., M, D), lse (..., M)) -> (o, lse) over all keys.

    w_p = exp(lse_p - max lse), o = sum_p w_p o_p / sum_p w_p, lse = max lse + log sum_p w_p. Associative and
    commutative; a part that sees nothing (lse = -inf) changes nothing. Differentiable in o and lse.
    """
    if not parts:
        raise ValueError("merge needs at least one part (o, lse)")
    lses = torch.stack([lse for _, lse in parts])
    top = lses.detach().amax(0).clamp_min(torch.finfo(lses.dtype).min)
    weights = (lses - top).exp()
    total = weights.sum(0)
    seen = total > 0
    total = torch.where(seen, total, 1.0)
    shares = (weights / total).unsqueeze(-1)
    o = sum(share * part.to(shares.dtype) for share, (part, _) in zip(shares, parts))
    return torch.as_tensor(o).to(parts[0][0].dtype), torch.where(seen, top + total.log(), -math.inf)
