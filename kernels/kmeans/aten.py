"""The same on a CPU: distances of a few points at a time, so that they stay in the cache."""

import torch
from torch import Tensor

TILE = 256 * 1024
"""Distances kept at a time (1 MiB of float32)."""


def assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, N, D), centroids (B, K, D) -> ids (B, N) int32, squared distances (B, N) in float32 or wider.

    argmin |x - c|^2 = argmin |c|^2 / 2 - <x, c>: one matrix product that starts from |c|^2 / 2.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    batch, points, _ = x.shape
    ids = torch.empty(batch, points, dtype=torch.int32, device=x.device)
    distances = torch.empty(batch, points, dtype=wide, device=x.device)
    step = max(16, TILE // max(1, centroids.shape[1]))
    for b in range(batch):
        # summed over rows: equal centroids get equal bits, so that the smaller index keeps their ties
        half = centroids[b].to(wide).square().sum(1) / 2
        columns = centroids[b].to(wide).t().contiguous()
        for n in range(0, points, step):
            rows = x[b, n : n + step].to(wide)
            least, nearest = torch.addmm(half, rows, columns, alpha=-1).min(1)
            ids[b, n : n + step] = nearest
            distances[b, n : n + step] = least.mul_(2).add_(rows.square().sum(1)).clamp_(min=0)
    return ids, distances


def update(x: Tensor, ids: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, N, D), ids (B, N) int32, centroids (B, K, D) -> new centroids (B, K, D), counts (B, K) int32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    batch, clusters, dim = centroids.shape
    flat = (ids.long() + clusters * torch.arange(batch, device=ids.device)[:, None]).reshape(-1)
    counts = torch.bincount(flat, minlength=batch * clusters).view(batch, clusters)
    sums = torch.zeros(batch * clusters, dim, dtype=wide, device=x.device)
    sums.index_add_(0, flat, x.reshape(-1, dim).to(wide))
    return means(sums.view(batch, clusters, dim), counts, centroids)


def means(sums: Tensor, counts: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (B, K, D) over counts (B, K); an empty cluster keeps its centroid."""
    new = torch.where(counts[..., None] > 0, sums / counts.clamp(min=1)[..., None], centroids)
    return new.to(centroids.dtype), counts.int()
