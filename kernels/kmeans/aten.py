"""The same on a CPU: distances of a few points at a time, so that they stay in the cache."""

import torch
from torch import Tensor

TILE, GROUP = 1024 * 1024, 64
"""Distances kept at a time (4 MiB of float32), and columns searched as one."""
FEW = 64 * 1024
"""Differences x - c that take less time one by one than a matrix product's preparation, and distances whose minimum is
found at once."""


def assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, N, D), centroids (B, K, D) -> ids (B, N) int32, squared distances (B, N) in float32 or wider."""
    if not len(x):
        wide = torch.promote_types(x.dtype, torch.float32)
        return x.new_empty(x.shape[:2], dtype=torch.int32), x.new_empty(x.shape[:2], dtype=wide)
    ids, distances = zip(*map(nearest, x, centroids))
    return torch.stack(ids), torch.stack(distances)


def nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """`assign` of one problem, x (N, D) and centroids (K, D).

    argmin |x - c|^2 = argmin |c|^2 / 2 - <x, c>: one matrix product that starts from |c|^2 / 2.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    x, centroids = x.to(wide), centroids.to(wide)
    (points, dim), clusters = x.shape, len(centroids)
    if points * clusters * dim <= FEW:
        distances, ids = torch.cdist(x, centroids, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        # as NaN as in the product, where a point is infinite
        return ids.int(), distances.square().add_(distances, alpha=0)
    if clusters > 2 * GROUP and clusters % GROUP and points * clusters > FEW:
        # whole groups of columns: the last centroid is repeated, which a tie never takes
        repeated = torch.arange(-(-clusters // GROUP) * GROUP, device=x.device).clamp_(max=clusters - 1)
        centroids = centroids[repeated]
    # summed over rows: equal centroids get equal bits, so that the smaller index keeps their ties
    half = centroids.square().sum(1).mul_(0.5)
    columns = centroids.t().contiguous()
    step = max(16, TILE // len(centroids))
    if points <= step:
        least, ids = first_minimum(torch.addmm(half, x, columns, alpha=-1))
        return ids.int().clamp_(max=clusters - 1), _distances(least, x)
    all_ids, all_distances = x.new_empty(points, dtype=torch.int32), x.new_empty(points)
    buffer = x.new_empty(step, len(centroids))
    for n in range(0, points, step):
        rows = x[n : n + step]
        least, ids = first_minimum(torch.addmm(half, rows, columns, alpha=-1, out=buffer[: len(rows)]))
        all_ids[n : n + step], all_distances[n : n + step] = ids, _distances(least, rows)
    return all_ids.clamp_(max=clusters - 1), all_distances


def _distances(least: Tensor, x: Tensor) -> Tensor:
    """|x - c|^2 from the smallest |c|^2 / 2 - <x, c>."""
    return x.square().sum(1).add_(least, alpha=2).clamp_(min=0)


def first_minimum(values: Tensor) -> tuple[Tensor, Tensor]:
    """`values.min(1)` of (N, K), the first of equal ones, in less than half the time.

    To find a minimum is vectorised, to find its place is not: only the first group of columns that reaches the minimum
    is searched for the place.
    """
    points, columns = values.shape
    if columns % GROUP or columns <= 2 * GROUP or values.numel() <= FEW:
        return values.min(1)
    groups = values.view(-1, GROUP)
    least, which = groups.amin(1).view(points, -1).min(1)
    first = torch.arange(0, len(groups), columns // GROUP, device=values.device)
    inside = groups.index_select(0, first + which).argmin(1)
    return least, inside.add_(which, alpha=GROUP)


def update(x: Tensor, ids: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, N, D), ids (B, N), centroids (B, K, D) -> new centroids (B, K, D), counts (B, K) int32."""
    batch, clusters, dim = centroids.shape
    _check_ids(ids, clusters)
    flat = (ids.long() + clusters * torch.arange(batch, device=ids.device)[:, None]).reshape(-1)
    new, counts = _means(x.reshape(-1, dim), flat, centroids.reshape(-1, dim))
    return new.view(centroids.shape), counts.view(batch, clusters)


def update_one(x: Tensor, ids: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """`update` of one problem, x (N, D), ids (N,) and centroids (K, D)."""
    _check_ids(ids, len(centroids))
    return _means(x, ids.long(), centroids)


def _check_ids(ids: Tensor, clusters: int) -> None:
    if ids.numel() and ids.device.type == "cpu":  # a GPU is not waited for
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= clusters:
            raise ValueError(f"kmeans: ids from {low} to {high}, expected 0 to {clusters - 1}")


def _means(x: Tensor, ids: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(ids, minlength=len(centroids))
    sums = torch.zeros_like(centroids, dtype=torch.promote_types(x.dtype, torch.float32))
    sums.index_add_(0, ids, x.to(sums.dtype))
    if len(ids) >= len(centroids):
        return means(sums, counts, centroids)
    filled = counts.nonzero()[:, 0]
    found = sums.index_select(0, filled).div_(counts.index_select(0, filled)[:, None])
    return centroids.index_copy(0, filled, found.to(centroids.dtype)), counts.int()


def means(sums: Tensor, counts: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (..., K, D), which are overwritten, over counts (..., K); an empty cluster keeps its centroid."""
    sizes = counts.unsqueeze(-1)
    new = torch.where(sizes > 0, sums.div_(sizes.clamp(min=1)), centroids)
    return new.to(centroids.dtype), counts.int()
