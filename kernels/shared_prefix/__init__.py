"""Attention of many sequences that begin with the same keys (Hydragen, arXiv 2402.05099).

    o = merge(attention(all queries of a group, prefix), attention(each sequence's queries, its own keys))

The prefix is read once for the whole group instead of once per sequence, and its product is one large matrix product.
Prefixes shared by all crops of an image, by all images of a batch (concept or text prompts) or by all windows (global
tokens) are of this kind. Nested prefixes are further parts for `merge`.
"""

from torch import Tensor

from zoo.kernels.attention import attention, merge

__all__ = ["shared_prefix_attention"]


def shared_prefix_attention(
    q: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    scale: float | None = None,
    *,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """q (B, H, M, D), own keys k, v (B, K, N, D), prefix_k, prefix_v (P, K, L, D): sequences b P / B share prefix p.

    causal holds among a sequence's own keys; a prefix is seen by every query.
    """
    batch, prefixes = len(q), len(prefix_k)
    if not prefixes or batch % prefixes:
        raise ValueError(f"{batch} sequences cannot share {prefixes} prefixes evenly")
    grouped = q.unflatten(0, (prefixes, batch // prefixes)).transpose(1, 2).flatten(2, 3)  # (P, H, B / P M, D)
    prefix_o, prefix_lse = attention(grouped, prefix_k, prefix_v, scale=scale, return_lse=True)
    members = (batch // prefixes, q.shape[2])
    prefix_o = prefix_o.unflatten(2, members).transpose(1, 2).flatten(0, 1)
    prefix_lse = prefix_lse.unflatten(2, members).transpose(1, 2).flatten(0, 1)
    o, lse = merge([(prefix_o, prefix_lse), attention(q, k, v, causal=causal, scale=scale, return_lse=True)])
    return (o, lse) if return_lse else o
