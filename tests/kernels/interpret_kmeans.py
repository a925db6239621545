"""The k-means kernels in the interpreter, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.kmeans import reference
from zoo.kernels.kmeans import triton as kernels

SHAPES = [(1, 1, 1, 1), (2, 37, 5, 3), (1, 130, 33, 70), (2, 3, 130, 65), (1, 0, 4, 3)]


@pytest.mark.parametrize(("batch", "points", "dim", "clusters"), SHAPES)
def test_assign_and_update(batch, points, dim, clusters):
    torch.manual_seed(0)
    x, centroids = torch.randn(batch, points, dim), torch.randn(batch, clusters, dim)
    if clusters > 2:
        centroids[:, 1] = centroids[:, 0]
        centroids[:, 2] = 100
    with GuardBands() as guard:
        ids, distances = kernels.assign(guard.input(x), guard.input(centroids))
        new, counts = kernels.update(guard.input(x), ids, guard.input(centroids))
        guard.check(distances, new)
    want_ids, want_distances = reference.assign(x, centroids)
    assert torch.equal(ids.long(), want_ids)
    close(distances, want_distances)
    want, want_counts = reference.update(x, want_ids, centroids)
    close(new, want, tolerance=2e-6)
    assert torch.equal(counts.long(), want_counts)
