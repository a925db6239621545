"""Concept alignment score (Espinosa Zarlenga et al., NeurIPS 2022, arXiv 2209.09056)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.tasks.metrics.plots import bars
from zoo.tasks.metrics.representations import RepresentationMetric


def k_medoids(distances: np.ndarray, clusters: int, *, iterations: int = 30) -> np.ndarray:
    """Label of each of N points: alternate between the nearest medoid and the member nearest to all of its cluster.

    distances (N, N). Starts from the points nearest to all others; deterministic.
    """
    medoids = np.argsort(distances.sum(1), kind="stable")[:clusters]
    labels = distances[:, medoids].argmin(1)
    for _ in range(iterations):
        labels[medoids] = np.arange(clusters)
        inside = (distances * (labels[:, None] == labels[None])).sum(1)
        order = np.lexsort((inside, labels))
        moved = order[np.searchsorted(labels[order], np.arange(clusters))]
        if np.array_equal(moved, medoids):
            break
        medoids = moved
        labels = distances[:, medoids].argmin(1)
    return labels


def alignment(representation: np.ndarray, concept: np.ndarray, *, points: int = 10) -> float:
    """Area under homogeneity over the number of clusters, 2 to N, as a share of its maximum.

    representation (N, m), concept (N,) 0 or 1: 1 where every clustering keeps the two values apart.
    """
    from sklearn.metrics import homogeneity_score, pairwise_distances

    distances = pairwise_distances(representation)
    counts = np.unique(np.linspace(2, len(concept), points).astype(int))
    heights = [homogeneity_score(concept, k_medoids(distances, count)) for count in counts]
    return float(np.trapezoid(heights, counts) / (counts[-1] - counts[0]))


class ConceptAlignment(RepresentationMetric):
    """CAS: `alignment` of every concept's representation with the true concept, and the mean of all as `mean`.

    samples: a random choice of so many samples is clustered; time grows with its square.
    """

    higher_is_better = True

    def __init__(
        self, names: Sequence[str], *, samples: int = 300, points: int = 10, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.names, self.samples, self.points, self.seed = tuple(names), samples, points, seed

    def compute(self) -> dict[str, Tensor]:
        given, truth = self.gathered()
        given, concepts = given.cpu(), truth.cpu() > 0.5
        chosen = torch.randperm(len(concepts), generator=torch.Generator().manual_seed(self.seed))[: self.samples]
        pairs = zip(given[chosen].unbind(1), concepts[chosen].unbind(1))
        scores = torch.tensor([alignment(z.numpy(), c.numpy(), points=self.points) for z, c in pairs])
        return {"alignment": scores, "mean": scores.mean()}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        value = self.compute() if val is None else val
        return bars(value["alignment"], self.names, label="concept alignment", ax=ax)
