"""K-means: parity, scikit-learn, ties, empty clusters, starts, registration, export, resources."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as SklearnKMeans

from tests.golden.cases import Case, adapter
from tests.kernels.harness import check_compiled, check_exported, check_onnx, close, interpreter_test
from zoo.kernels.kmeans import assign, aten, kmeans, reference, update

test_interpreter = interpreter_test("interpret_kmeans.py")


@adapter("kmeans", "lloyd_kmeans", repeats=("batch", "clusters", "dim", "points"))
def lloyd_kmeans(case: Case) -> dict:
    x, centroids = case.input["x"], case.input["centroids"]
    result: dict = {}
    assignments, inertias = [], []
    for iteration in range(case.arguments["iterations"]):
        ids, distances = assign(x, centroids)
        assignments.append(ids)
        inertias.append(distances.double().sum(-1))
        centroids, counts = update(x, ids, centroids)
        if iteration == 0:
            result |= {"output/assign": ids, "output/assign_upstream": ids, "output/sq_dist": distances}
            result |= {"output/centroids_1": centroids, "output/counts_1": counts}
    result[f"output/centroids_{case.arguments['iterations']}"] = centroids
    return result | {
        "output/assign_per_iter": torch.stack(assignments),
        "output/inertia_per_iter": torch.stack(inertias),
    }


def blobs(points=300, dim=6, clusters=5, spread=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    middles = 5 * torch.randn(clusters, dim, generator=generator)
    label = torch.arange(points) % clusters
    return middles[label] + spread * torch.randn(points, dim, generator=generator), label


def test_tiles_equal_the_whole(monkeypatch):
    x, centroids = torch.randn(2, 100, 7), torch.randn(2, 9, 7)
    whole = aten.assign(x, centroids)
    monkeypatch.setattr(aten, "TILE", 9 * 16)
    for got, want in zip(aten.assign(x, centroids), whole):
        assert torch.equal(got, want)
    ids, distances = reference.assign(x, centroids)
    assert torch.equal(whole[0].long(), ids)
    close(whole[1], distances)


def test_ties_go_to_the_smallest_index():
    x = torch.randn(500, 16)
    centroids = torch.randn(20, 16).repeat(7, 1)
    ids, _ = assign(x, centroids)
    assert (ids < 20).all()


@pytest.mark.parametrize("columns", [64, 128, 192, 512])
def test_the_first_minimum_of_a_row(columns):
    values = torch.randint(0, 40, (50, columns)).float()
    values[3, 70 % columns] = float("nan")
    least, ids = aten.first_minimum(values)
    want, where = values.min(1)
    assert torch.equal(ids, where)
    torch.testing.assert_close(least, want, rtol=0, atol=0, equal_nan=True)


def test_many_centroids():
    """More of them than a group of columns, and a part of a group."""
    x, centroids = torch.randn(1, 90, 5), torch.randn(1, 150, 5)
    ids, distances = aten.assign(x, centroids)
    want, wanted = reference.assign(x, centroids)
    assert torch.equal(ids.long(), want)
    close(distances, wanted)


def test_equals_scikit_learn():
    x, _ = blobs(spread=3.0)
    start = x[:5].clone()
    ours = kmeans(x, init=start, tolerance=0.0, iterations=300)
    theirs = SklearnKMeans(5, init=start.numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=300).fit(x.numpy())
    assert np.array_equal(ours.assignment.numpy(), theirs.labels_)
    close(ours.centroids, torch.from_numpy(theirs.cluster_centers_), tolerance=1e-5)
    assert float(ours.inertia) == pytest.approx(theirs.inertia_, rel=1e-5)


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_result_belongs_together_and_is_reproducible(init):
    x, _ = blobs(spread=2.0)
    found = kmeans(x, 7, init=init, generator=torch.Generator().manual_seed(3))
    again = kmeans(x, 7, init=init, generator=torch.Generator().manual_seed(3))
    assert torch.equal(found.centroids, again.centroids)
    ids, distances = assign(x, found.centroids)
    assert torch.equal(found.assignment, ids)
    assert float(found.inertia) == pytest.approx(float(distances.sum()), rel=1e-5)
    assert int(found.counts.sum()) == len(x)
    assert torch.equal(found.counts, torch.bincount(ids, minlength=7))


def test_spread_start_finds_separate_blobs():
    x, label = blobs(clusters=8, points=400)
    found = kmeans(x, 8, generator=torch.Generator().manual_seed(1))
    purity = sum(int(torch.bincount(label[found.assignment == k]).max()) for k in range(8) if found.counts[k]) / len(x)
    assert purity > 0.9


def test_one_point_is_its_own_centroid_at_once():
    found = kmeans(torch.randn(1, 3), 1)
    assert float(found.inertia) == 0
    assert found.iterations == 1


def test_more_clusters_than_distinct_points():
    x = torch.zeros(10, 3)
    x[5:] = 1
    found = kmeans(x, 4, generator=torch.Generator().manual_seed(0))
    assert float(found.inertia) == 0
    assert found.centroids.isfinite().all()


def test_batch_equals_one_by_one():
    x = torch.randn(3, 60, 4)
    start = x[:, :5].clone()
    whole = kmeans(x, init=start, tolerance=0.0, iterations=4)
    for b in range(3):
        one = kmeans(x[b], init=start[b], tolerance=0.0, iterations=4)
        assert torch.equal(one.assignment, whole.assignment[b])
        close(one.centroids, whole.centroids[b], tolerance=1e-6)


def test_cosine_ignores_lengths():
    x, label = blobs(clusters=4)
    found = kmeans(x * torch.rand(300, 1).add(0.1), 4, cosine=True, generator=torch.Generator().manual_seed(0))
    close(found.centroids.norm(dim=-1), torch.ones(4), tolerance=1e-6)
    assert len({(int(a), int(b)) for a, b in zip(label, found.assignment)}) <= 8


def test_inertia_does_not_increase_and_empty_clusters_stay():
    x, _ = blobs(spread=3.0)
    centroids = torch.cat([x[:4], torch.full((1, 6), 1e3)])
    before = float("inf")
    for _ in range(6):
        ids, distances = assign(x, centroids)
        assert float(distances.sum()) <= before * (1 + 1e-6)
        before = float(distances.sum())
        centroids, counts = update(x, ids, centroids)
        assert counts[4] == 0
        assert (centroids[4] == 1e3).all()


def test_operators_are_registered_soundly():
    x, centroids = torch.randn(2, 20, 4), torch.randn(2, 3, 4)
    torch.library.opcheck(torch.ops.zoo.kmeans_assign.default, (x, centroids))
    ids, _ = assign(x, centroids)
    torch.library.opcheck(torch.ops.zoo.kmeans_update.default, (x, ids, centroids))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(assign(x.bfloat16(), centroids)[0], assign(x.bfloat16().float(), centroids)[0])


def test_compile_and_export(tmp_path):
    x, centroids = torch.randn(20, 4), torch.randn(3, 4)
    check_compiled(assign, x, centroids)
    check_exported(assign, x, centroids)
    check_onnx(assign, x, centroids, path=tmp_path)


def test_errors():
    with pytest.raises(ValueError, match="11 clusters of 10 points"):
        kmeans(torch.randn(10, 2), 11)
    with pytest.raises(ValueError, match=r"expected \(N, D\) and \(K, D\)"):
        assign(torch.randn(10, 2), torch.randn(3, 4))
    with pytest.raises(ValueError, match="centroids"):
        assign(torch.randn(10, 2), torch.randn(0, 2))
