"""Clusters of equal size: spherical k-means whose clusters have room for a fixed number of rows.

Rounds of offers: a row asks the most similar cluster that still has room; a cluster that is asked by more rows than it
can take keeps those with the largest regret, the similarity they would lose by going to their second choice.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.kmeans import kmeans, update

SIMILARITIES = 1 << 24
"""Similarities kept at a time (64 MiB of float32)."""


@torch.no_grad()
def balanced_clusters(
    weight: Tensor,
    capacity: int = 16,
    *,
    iterations: int = 10,
    refinements: int = 2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Group the rows of weight (V, D) by direction into ceil(V / capacity) clusters of at most `capacity` rows.

    Returns the rows of each cluster in ascending order, (clusters, capacity) int64, filled up with -1. Costs
    2 V^2 D / capacity operations for each of the `iterations` of plain k-means, a little more for each refinement
    (means of the clusters of equal size, then another round of offers).

    Raises ValueError for a capacity below 1, or a matrix without rows.
    """
    if capacity < 1 or weight.ndim != 2 or not len(weight):
        raise ValueError(
            f"balanced_clusters: weight {tuple(weight.shape)} and capacity {capacity}, expected (V, D), 1+"
        )
    points = F.normalize(weight.to(torch.promote_types(weight.dtype, torch.float32)), dim=-1)
    count = -(-len(points) // capacity)
    found = kmeans(points, count, init="random", iterations=iterations, cosine=True, generator=generator)
    centroids = found.centroids
    for _ in range(refinements):
        means, _ = update(points, offers(points, centroids, capacity).int(), centroids)
        centroids = F.normalize(means, dim=-1)
    ids = offers(points, centroids, capacity)
    order = ids.argsort(stable=True)
    clusters = torch.full((count, capacity), -1, device=weight.device)
    clusters[ids[order], _ranks(ids[order], count)] = order
    return clusters


def offers(points: Tensor, centroids: Tensor, capacity: int) -> Tensor:
    """A cluster for each of points (N, D), at most `capacity` to each of centroids (K, D): ids (N,) int64."""
    count = len(centroids)
    ids = torch.full((len(points),), -1, device=points.device)
    room = torch.full((count,), capacity, device=points.device)
    left = torch.arange(len(points), device=points.device)
    while len(left):
        free = room.nonzero()[:, 0]
        choice, regret = _choices(points[left], centroids[free])
        choice = free[choice]
        order = regret.argsort(descending=True, stable=True)
        order = order[choice[order].argsort(stable=True)]
        asked = choice[order]
        taken = order[_ranks(asked, count) < room[asked]]
        ids[left[taken]] = choice[taken]
        room -= torch.bincount(choice[taken], minlength=count)
        left = left[ids[left] < 0]
    return ids


def _choices(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar centroid of each point, and by how much it is ahead of the second."""
    if len(centroids) == 1:
        return torch.zeros(len(points), dtype=torch.long, device=points.device), (points @ centroids.t())[:, 0]
    parts = []
    for part in points.split(max(1, SIMILARITIES // len(centroids))):
        value, index = (part @ centroids.t()).topk(2)
        parts.append((index[:, 0], value[:, 0] - value[:, 1]))
    index, ahead = zip(*parts)
    return torch.cat(index), torch.cat(ahead)


def _ranks(ids: Tensor, count: int) -> Tensor:
    """The place of each entry among those with the same id, for ascending ids."""
    starts = torch.searchsorted(ids, torch.arange(count, device=ids.device))
    return torch.arange(len(ids), device=ids.device) - starts[ids]
