"""Exact k-means (Lloyd) without the N x K distances: codebooks, concept discovery, clustered heads.

found = kmeans(features, 64, generator=torch.Generator().manual_seed(0))
found.centroids, found.assignment, found.inertia
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.cumulative import cumulative
from zoo.kernels.dispatch import exporting, runs_triton, traced
from zoo.kernels.kmeans import aten

__all__ = ["KMeans", "assign", "kmeans", "update"]


class KMeans(NamedTuple):
    """centroids (..., K, D); assignment (..., N) int32 to these centroids; counts (..., K); inertia (...), the sum of
    squared distances; iterations that were run."""

    centroids: Tensor
    assignment: Tensor
    counts: Tensor
    inertia: Tensor
    iterations: int


def assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each point, the one with the smallest index on a tie, and the squared distance to it.

    Args:
        x: (N, D), or (B, N, D) for B problems at once.
        centroids: (K, D) or (B, K, D).
    Returns:
        ids (..., N) int32; squared distances (..., N), float32 or wider.
    Raises:
        ValueError: shapes that do not fit, or no centroid.
    """
    _check(x, centroids)
    if _runs_directly(x, centroids):
        return aten.nearest(x, centroids) if x.ndim == 2 else aten.assign(x, centroids)
    if exporting():
        rows, columns = x, centroids.transpose(-1, -2)
        value = columns.square().sum(-2)[..., None, :] - 2 * (rows @ columns)
        least, ids = value.min(-1)
        return ids.int(), (least + rows.square().sum(-1)).clamp(min=0)
    if x.ndim == 2:
        ids, distances = torch.ops.zoo.kmeans_assign(x[None], centroids[None])
        return ids[0], distances[0]
    return torch.ops.zoo.kmeans_assign(x, centroids)


def update(x: Tensor, ids: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the points of each cluster, and how many there are; an empty cluster keeps its centroid.

    Args: x (..., N, D), ids (..., N) and centroids (..., K, D) as for `assign`.
    Returns:
        centroids (..., K, D) and counts (..., K) int32.
    Raises:
        ValueError: shapes that do not fit, and on a CPU ids outside 0 to K - 1; a GPU, which would have to be waited
            for, leaves their points out.
    """
    _check(x, centroids)
    if ids.shape != x.shape[:-1]:
        raise ValueError(f"kmeans: ids {tuple(ids.shape)} for points {tuple(x.shape)}, expected one for each")
    if _runs_directly(x, centroids):
        return aten.update_one(x, ids, centroids) if x.ndim == 2 else aten.update(x, ids, centroids)
    if exporting():
        index, wide = ids.long(), torch.promote_types(x.dtype, torch.float32)
        counts = torch.zeros_like(centroids[..., 0], dtype=torch.int64).scatter_add(-1, index, torch.ones_like(index))
        sums = torch.zeros_like(centroids, dtype=wide).scatter_add(-2, index[..., None].expand_as(x), x.to(wide))
        return aten.means(sums, counts, centroids)
    if x.ndim == 2:
        new, counts = torch.ops.zoo.kmeans_update(x[None], ids[None], centroids[None])
        return new[0], counts[0]
    return torch.ops.zoo.kmeans_update(x, ids, centroids)


@torch.no_grad()
def kmeans(
    x: Tensor,
    clusters: int | None = None,
    *,
    init: Literal["k-means++", "random"] | Tensor = "k-means++",
    iterations: int = 100,
    tolerance: float = 1e-4,
    cosine: bool = False,
    generator: torch.Generator | None = None,
) -> KMeans:
    """Cluster points by Lloyd's iterations; centroids and assignment of the result belong together.

    Stops when no centroid moves by more than `tolerance` times the standard deviation of the data, or after
    `iterations` updates. k-means++ starts: Arthur and Vassilvitskii, SODA 2007. Features whose mean is larger than
    their deviation are centred, as `assign` cannot: the result's ids may be finer than `assign` to its centroids.

    Args:
        x: (N, D), or (B, N, D) for B problems at once.
        clusters: K; may be left out when `init` is a tensor.
        init: where to start; a tensor gives the centroids (..., K, D).
        cosine: cluster directions (spherical k-means): points and centroids have length 1.
        generator: source of randomness, on the device of x.
    Raises:
        ValueError: more clusters than points, none of either, another start, or shapes that do not fit.
    """
    _check_start(x, clusters, init)
    points = F.normalize(x, dim=-1) if cosine else x
    points = points if x.ndim == 3 else points[None]
    # directions have no large mean, and 16 bits hold none beside a spread
    middle = _middle(points) if not cosine and x.dtype in (torch.float32, torch.float64) else None
    points = points if middle is None else points - middle
    if isinstance(init, Tensor):
        centroids = init if init.ndim == 3 else init[None]
        centroids = F.normalize(centroids, dim=-1) if cosine else centroids
        centroids = centroids if middle is None else centroids - middle
    else:
        assert clusters is not None
        centroids = (_spread if init == "k-means++" else _random)(points, clusters, generator)
    limit = tolerance * _deviation(points).mean(-1)
    done = 0
    ids, distances = assign(points, centroids)
    while done < iterations:
        previous = centroids
        centroids, _ = update(points, ids, previous)
        centroids = F.normalize(centroids, dim=-1) if cosine else centroids
        ids, distances = assign(points, centroids)
        done += 1
        shift = (centroids - previous).float().norm(dim=-1).amax(-1)
        if bool((shift <= limit).all()):
            break
    counts = torch.stack([torch.bincount(row, minlength=centroids.shape[1]) for row in ids.long()])
    inertia = distances.double().sum(-1)
    centroids = centroids if middle is None else (centroids + middle).to(centroids.dtype)
    if x.ndim == 3:
        return KMeans(centroids, ids, counts, inertia, done)
    return KMeans(centroids[0], ids[0], counts[0], inertia[0], done)


def _middle(x: Tensor) -> Tensor:
    """The mean of points (B, N, D), (B, 1, D), where it is larger than their deviation: |c|^2 - 2 <x, c> would cancel.

    Elsewhere 0, so that one point far out does not take the digits of all others.
    """
    mean = x.mean(1, keepdim=True)
    return torch.where(mean.abs() > _deviation(x)[:, None], mean, 0.0)


def _deviation(x: Tensor) -> Tensor:
    """`x.std(1)` of (B, N, D) in float32, which PyTorch computes five times more slowly on a CPU; 0 of one point."""
    centred = x.float() - x.float().mean(1, keepdim=True)
    return (centred.square_().sum(1) / max(x.shape[1] - 1, 1)).sqrt()


def _random(x: Tensor, clusters: int, generator: torch.Generator | None) -> Tensor:
    order = torch.rand(x.shape[:2], device=x.device, generator=generator).argsort(1)[:, :clusters]
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))


def _spread(x: Tensor, clusters: int, generator: torch.Generator | None) -> Tensor:
    """k-means++: each further centroid is a point drawn with probability proportional to its squared distance."""
    batch, points, _ = x.shape
    every = torch.arange(batch, device=x.device)
    weight = torch.ones(batch, points, dtype=torch.float64, device=x.device)
    distance = torch.full_like(weight, float("inf"))
    chosen = []
    for _ in range(clusters):
        reached = cumulative(weight)
        draw = torch.rand(batch, 1, dtype=torch.float64, device=x.device, generator=generator)
        index = torch.searchsorted(reached, draw * reached[:, -1:], right=True).clamp(max=points - 1)[:, 0]
        chosen.append(x[every, index])
        distance = distance.minimum((x - chosen[-1][:, None]).float().square().sum(-1).double())
        # all points are centroids already: draw any
        weight = torch.where(distance.sum(1, keepdim=True) > 0, distance, torch.ones_like(distance))
    return torch.stack(chosen, 1)


def _runs_directly(x: Tensor, centroids: Tensor) -> bool:
    """Whether nothing needs the operator: no kernel, no autocast, no gradient that it refuses, no graph."""
    if traced() or x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or runs_triton(x, centroids):
        return False
    return not (torch.is_grad_enabled() and (x.requires_grad or centroids.requires_grad))


def _check_start(x: Tensor, clusters: int | None, init: str | Tensor) -> None:
    if x.ndim not in (2, 3) or not x.shape[:-1].numel():
        raise ValueError(f"kmeans: points {tuple(x.shape)}, expected (N, D) or (B, N, D) with at least one point")
    if isinstance(init, Tensor):
        _check(x, init)
        if clusters not in (None, init.shape[-2]):
            raise ValueError(f"kmeans: {clusters} clusters from an init of {init.shape[-2]} centroids, leave one out")
    elif init not in ("k-means++", "random"):
        raise ValueError(f"kmeans: init {init!r}, choose k-means++, random, or a tensor of centroids")
    elif clusters is None or not 1 <= clusters <= x.shape[-2]:
        raise ValueError(f"kmeans: {clusters} clusters of {x.shape[-2]} points, choose 1 to {x.shape[-2]}")


def _check(x: Tensor, centroids: Tensor) -> None:
    if x.ndim not in (2, 3) or x.ndim != centroids.ndim or x.shape[-1] != centroids.shape[-1]:
        raise ValueError(
            f"kmeans: points {tuple(x.shape)} and centroids {tuple(centroids.shape)}, expected (N, D) and (K, D), "
            "or both with a batch in front"
        )
    if centroids.shape[-2] == 0 or x.shape[:-2] != centroids.shape[:-2]:
        raise ValueError(f"kmeans: centroids {tuple(centroids.shape)} for points {tuple(x.shape)}")


@torch.library.custom_op("zoo::kmeans_assign", mutates_args=())
def _assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    if runs_triton(x, centroids):
        from zoo.kernels.kmeans import triton

        return triton.assign(x, centroids)
    return aten.assign(x, centroids)


@_assign.register_fake
def _(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape[:2], dtype=torch.int32), x.new_empty(x.shape[:2], dtype=wide)


@torch.library.custom_op("zoo::kmeans_update", mutates_args=())
def _update(x: Tensor, ids: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    if runs_triton(x, centroids):
        from zoo.kernels.kmeans import triton

        return triton.update(x, ids, centroids)
    return aten.update(x, ids, centroids)


@_update.register_fake
def _(x: Tensor, ids: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(centroids), centroids.new_empty(centroids.shape[:2], dtype=torch.int32)


for _device in ("cpu", "cuda"):
    torch.library.register_autocast("zoo::kmeans_assign", _device, torch.float32)
    torch.library.register_autocast("zoo::kmeans_update", _device, torch.float32)
