"""The k-means kernels in the interpreter, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.kmeans import aten, reference
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


@pytest.mark.parametrize("clusters", [5, 150])
@pytest.mark.parametrize("where", ["points", "centroids", "both"])
def test_nan_goes_where_argmin_sends_it(where, clusters):
    """A point of NaN to the first centroid, every point to the first centroid of NaN; infinite points are not lost."""
    torch.manual_seed(0)
    x, centroids = torch.randn(2, 70, 33), torch.randn(2, clusters, 33)
    if where != "centroids":
        x[0, [3, 65], 7] = float("nan")
        x[1, 4] = float("inf")
    if where != "points":
        centroids[0, [clusters - 2, clusters - 1]] = float("nan")
    ids, distances = kernels.assign(x, centroids)
    want, squares = aten.assign(x, centroids)
    assert bool(squares.isnan().any())
    assert torch.equal(ids, want)
    assert torch.equal(distances.isnan(), squares.isnan())
    assert torch.equal(ids[0].long(), torch.cdist(x[0], centroids[0]).argmin(1))
    close(distances.nan_to_num(0.0), squares.nan_to_num(0.0), tolerance=2e-6)
    new, counts = kernels.update(x, ids, centroids)
    means, sizes = aten.update(x, want, centroids)
    assert torch.equal(counts, sizes)
    assert torch.equal(new.isnan(), means.isnan())


def test_ids_that_no_cluster_has_are_left_out():
    """A GPU would have to be waited for to refuse them."""
    torch.manual_seed(0)
    x, centroids = torch.randn(3, 40, 5), torch.randn(3, 4, 5)
    ids = torch.randint(0, 4, (3, 40))
    wrong = ids.clone()
    wrong[:, :3] = torch.tensor([-1, 4, 1 << 31])
    with GuardBands() as guard:
        new, counts = kernels.update(guard.input(x), guard.input(wrong), guard.input(centroids))
        guard.check(new)
    want, sizes = reference.update(x[:, 3:], ids[:, 3:], centroids)
    close(new, want, tolerance=2e-6)
    assert torch.equal(counts.long(), sizes)
