"""The same on a CPU: distances of a few points at a time, so that they stay in the cache."""

import torch
from torch import Tensor

TILE, GROUP = 1024 * 1024, 64
"""Distances kept at a time (4 MiB of float32), and columns searched as one."""


def assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, N, D), centroids (B, K, D) -> ids (B, N) int32, squared distances (B, N) in float32 or wider.

    argmin |x - c|^2 = argmin |c|^2 / 2 - <x, c>: one matrix product that starts from |c|^2 / 2.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    batch, points, _ = x.shape
    clusters = centroids.shape[1]
    ids = torch.empty(batch, points, dtype=torch.int32, device=x.device)
    least = torch.empty(batch, points, dtype=wide, device=x.device)
    lengths = torch.empty_like(least)
    # whole groups of columns: the last centroid is repeated, which a tie never takes
    filled = torch.arange(-(-clusters // GROUP) * GROUP if clusters > 2 * GROUP else clusters).clamp_(max=clusters - 1)
    step = min(max(16, TILE // len(filled)), max(1, points))
    buffer = torch.empty(step, len(filled), dtype=wide, device=x.device)
    for b in range(batch):
        repeated = centroids[b].to(wide)[filled]
        # summed over rows: equal centroids get equal bits, so that the smaller index keeps their ties
        half = repeated.square().sum(1) / 2
        columns = repeated.t().contiguous()
        for n in range(0, points, step):
            rows = x[b, n : n + step].to(wide)
            values = torch.addmm(half, rows, columns, alpha=-1, out=buffer[: len(rows)])
            least[b, n : n + step], ids[b, n : n + step] = first_minimum(values)
            lengths[b, n : n + step] = rows.square().sum(1)
    return ids.clamp_(max=clusters - 1), least.mul_(2).add_(lengths).clamp_(min=0)


def first_minimum(values: Tensor) -> tuple[Tensor, Tensor]:
    """`values.min(1)` of (N, K), the first of equal ones, in less than half the time.

    To find a minimum is vectorised, to find its place is not: only the first group of columns that reaches the minimum
    is searched for the place.
    """
    points, columns = values.shape
    if columns % GROUP or columns <= 2 * GROUP:
        return values.min(1)
    groups = values.view(-1, GROUP)
    least, which = groups.amin(1).view(points, -1).min(1)
    first = torch.arange(0, len(groups), columns // GROUP, device=values.device)
    inside = groups.index_select(0, first + which).argmin(1)
    return least, inside.add_(which, alpha=GROUP)


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
