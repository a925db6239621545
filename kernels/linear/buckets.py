"""Scatterbrain with a support found by hashing: queries meet exactly the keys of their bucket (arXiv 2110.15343).

    w_ij = exp(s_ij) where i and j share a bucket under any hash, <phi(q_i), phi(k_j)> elsewhere

Queries and keys are made equally long without changing their inner products, projected to a random line, sorted, and
cut into buckets of equal size. Pairs that meet under several hashes count once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.linear.precision import widened, without_autocast
from zoo.kernels.linear.scatterbrain import performer_features
from zoo.kernels.linear.shapes import check


def equal_norms(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """q' = [q, 0, sqrt(M - |q|^2)], k' = [k, sqrt(M - |k|^2), 0] with M = max |q|^2 + max |k|^2 (XBOX+).

    q (..., M, D), k (..., N, D) -> (..., M, D + 2), (..., N, D + 2): all of length sqrt(M), <q', k'> = <q, k>.
    """
    long_q, long_k = (x.square().sum(-1, keepdim=True) for x in (q, k))
    total = long_q.amax(-2, keepdim=True) + long_k.amax(-2, keepdim=True)
    q_rest, k_rest = ((total - long).clamp(min=0).sqrt() for long in (long_q, long_k))
    return torch.cat([q, torch.zeros_like(q_rest), q_rest], -1), torch.cat([k, k_rest, torch.zeros_like(k_rest)], -1)


Orders = tuple[Tensor, Tensor]
"""Tokens in the order of their hashes: queries (hashes, B, H, M), keys (hashes, B, H, N)."""


def hash_orders(q: Tensor, k: Tensor, hashes: int, *, generator: torch.Generator | None = None) -> Orders:
    """The tokens of q (B, H, M, D) and k (B, H, N, D), sorted by their place on `hashes` random lines."""
    q, k = equal_norms(q.detach(), k.detach())
    lines = torch.randn(q.shape[-1], hashes, device=q.device, generator=generator).to(q.dtype)
    q_order, k_order = ((x @ lines).argsort(-2).permute(3, 0, 1, 2) for x in (q, k))
    return q_order, k_order


def bucketed_scatterbrain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    projection: Tensor,
    orders: Orders,
    *,
    sizes: tuple[int, int],
    scale: float | None = None,
) -> Tensor:
    """q (B, H, M, D), k (B, H, N, D), v (B, H, N, V), projection (m / 2, D) standard normal -> (B, H, M, V).

    orders: of queries (R, B, H, M) and keys (R, B, H, N), as `hash_orders` finds them; consecutive `sizes` (queries,
    keys) of an order are a bucket, the last one may hold fewer. scale: D ** -0.5 by default.

    Raises ValueError where shapes do not fit, or queries and keys fall into different numbers of buckets.
    """
    check(q, k, v)
    count = [-(-x.shape[2] // size) for x, size in zip((q, k), sizes)]
    if count[0] != count[1]:
        raise ValueError(f"buckets of {sizes} (queries, keys): {count[0]} of queries, {count[1]} of keys, need equal")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    slots = (orders[0].argsort(-1), orders[1].argsort(-1))
    rows_q, rows_k = (_buckets(order, size) for order, size in zip(orders, sizes))
    with without_autocast(q):
        q_wide, k_wide, v_wide, projection = widened(q, k, v, projection)
        phi_q = performer_features(q_wide, projection, scale=scale, per_row=True)
        phi_k = performer_features(k_wide, projection, scale=scale, per_row=False)
        v_one = torch.cat([v_wide, torch.ones_like(v_wide[..., :1])], -1)
        scores = _take(q_wide, rows_q) @ _take(k_wide, rows_k).mT * scale
        scores = scores.masked_fill((rows_k == k.shape[2]).unsqueeze(-2), -torch.inf)
        log_rank = phi_q.log_scale + phi_k.log_scale
        nearest = _back(scores.detach().amax(-1, keepdim=True), slots[0]).amax(0)
        top = torch.maximum(nearest, log_rank)
        rank = (log_rank - top).exp()
        low_rank = _take(phi_q.prime, rows_q) @ _take(phi_k.prime, rows_k).mT
        excess = (scores - _take(top, rows_q)).exp() - _take(rank, rows_q) * low_rank
        meetings = _meetings(slots, (rows_q, rows_k), sizes)
        near = _back((excess / meetings) @ _take(v_one, rows_k), slots[0]).sum(0)
        sums = rank * (phi_q.prime @ (phi_k.prime.mT @ v_one)) + near
        return (sums[..., :-1] / sums[..., -1:]).to(v.dtype)


def _buckets(order: Tensor, size: int) -> Tensor:
    """(R, B, H, N) -> (R, B, H, buckets, size), filled with the row N that `_take` finds empty."""
    return F.pad(order, (0, -order.shape[-1] % size), value=order.shape[-1]).unflatten(-1, (-1, size))


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """x (B, H, N, C) and rows (R, B, H, buckets, size) -> (R, B, H, buckets, size, C); row N is zero."""
    index = rows.flatten(3)[..., None].expand(-1, -1, -1, -1, x.shape[-1])
    padded = F.pad(x, (0, 0, 0, 1)).expand(len(rows), *x.shape[:2], -1, -1)
    return padded.gather(3, index).unflatten(3, rows.shape[3:])


def _back(x: Tensor, slots: Tensor) -> Tensor:
    """x (R, B, H, buckets, size, C) in the order of the tokens: (R, B, H, N, C)."""
    return x.flatten(3, 4).gather(3, slots[..., None].expand(-1, -1, -1, -1, x.shape[-1]))


def _meetings(slots: tuple[Tensor, ...], rows: tuple[Tensor, ...], sizes: tuple[int, int]) -> Tensor:
    """Under how many hashes each pair of a bucket meets, at least 1: (R, B, H, buckets, queries, keys)."""
    mine, theirs = (_take((s // size).permute(1, 2, 3, 0), r) for s, size, r in zip(slots, sizes, rows))
    return (mine.unsqueeze(-2) == theirs.unsqueeze(-3)).sum(-1).clamp(min=1)


def bucket_support(orders: Orders, *, sizes: tuple[int, int]) -> Tensor:
    """(B, H, M, N) bool: query and key share a bucket under any hash."""
    mine, theirs = (order.argsort(-1) // size for order, size in zip(orders, sizes))
    return (mine.unsqueeze(-1) == theirs.unsqueeze(-2)).any(0)
