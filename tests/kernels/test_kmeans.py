"""K-means: parity, scikit-learn, ties, empty clusters, starts, registration, export, resources."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from torch._subclasses.fake_tensor import FakeTensorMode

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
    monkeypatch.setattr(aten, "FEW", 0)
    whole = aten.assign(x, centroids)
    monkeypatch.setattr(aten, "TILE", 9 * 16)
    for got, want in zip(aten.assign(x, centroids), whole):
        assert torch.equal(got, want)
    ids, distances = reference.assign(x, centroids)
    assert torch.equal(whole[0].long(), ids)
    close(whole[1], distances)


@pytest.mark.parametrize("points", [5, 90, 500])
def test_ties_go_to_the_smallest_index(points):
    x = torch.randn(points, 16)
    centroids = torch.randn(20, 16).repeat(7, 1)
    ids, _ = assign(x, centroids)
    assert (ids < 20).all()


@pytest.mark.parametrize("columns", [64, 128, 192, 512])
def test_the_first_minimum_of_a_row(columns, monkeypatch):
    monkeypatch.setattr(aten, "FEW", 0)
    values = torch.randint(0, 40, (50, columns)).float()
    values[3, 70 % columns] = float("nan")
    least, ids = aten.first_minimum(values)
    want, where = values.min(1)
    assert torch.equal(ids, where)
    torch.testing.assert_close(least, want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("points", [90, 900])
def test_many_centroids(points):
    """More of them than a group of columns, and a part of a group."""
    x, centroids = torch.randn(1, points, 5), torch.randn(1, 150, 5)
    ids, distances = aten.assign(x, centroids)
    want, wanted = reference.assign(x, centroids)
    assert torch.equal(ids.long(), want)
    close(distances, wanted)


@pytest.mark.parametrize(("points", "clusters"), [(40, 3), (900, 30), (20, 50)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_without_the_operator_as_with_it(points, clusters, dtype):
    x, centroids = torch.randn(2, points, 8).to(dtype), torch.randn(2, clusters, 8).to(dtype)
    ids, distances = torch.ops.zoo.kmeans_assign(x, centroids)
    means, counts = torch.ops.zoo.kmeans_update(x, ids, centroids)
    for given, b in ((x, slice(None)), (x[1], 1)):
        found, squares = assign(given, centroids[b])
        new, sizes = update(given, found, centroids[b])
        assert torch.equal(found, ids[b])
        assert torch.equal(sizes, counts[b])
        assert (squares.dtype, new.dtype) == (distances.dtype, dtype)
        close(squares, distances[b], tolerance=1e-6)
        close(new, means[b])


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


def test_spread_start_draws_by_squared_distance():
    """The first centroid is any point; the next one that is 2 or 5 away from it with the odds 4 : 25."""
    problems = 20_000
    x = torch.tensor([0.0, 2.0, 5.0, 5.0])[:, None].expand(problems, 4, 1)
    start = kmeans(x, 2, iterations=0, generator=torch.Generator().manual_seed(0)).centroids[..., 0].round()
    first = torch.stack([(start[:, 0] == value).double().mean() for value in (0, 2, 5)])
    torch.testing.assert_close(first, torch.tensor([0.25, 0.25, 0.5]).double(), atol=0.015, rtol=0)
    second = start[start[:, 0] == 0, 1]
    shares = torch.stack([(second == value).double().mean() for value in (0, 2, 5)])
    torch.testing.assert_close(shares, torch.tensor([0.0, 4 / 54, 50 / 54]).double(), atol=0.015, rtol=0)


@pytest.mark.parametrize("tolerance", [None, 1e-2])
def test_stops_at_the_first_shift_within_the_tolerance(tolerance):
    x, _ = blobs(points=3000, spread=3.0)
    start = x[:5].clone()
    said = {} if tolerance is None else {"tolerance": tolerance}
    found = kmeans(x, init=start, **said)
    limit = (tolerance or 1e-4) * float(x.std(0).mean())
    shifts, centroids = [], start
    for _ in range(found.iterations):
        new, _ = reference.update(x[None], reference.assign(x[None], centroids[None])[0], centroids[None])
        shifts.append(float((new[0] - centroids).norm(dim=-1).max()))
        centroids = new[0]
    assert shifts[-1] <= limit < min(shifts[:-1])
    assert any(limit < shift < 100 * limit for shift in shifts), "no shift tells this tolerance from a larger one"


def test_a_large_mean_costs_nothing():
    x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)) + 1000
    found = kmeans(x, 64, generator=torch.Generator().manual_seed(0))
    own = (x.double() - found.centroids.double()[found.assignment.long()]).square().sum()
    assert float(found.inertia) == pytest.approx(float(own), rel=1e-4)
    ids, _ = reference.assign(x[None].double(), found.centroids[None].double())
    assert (found.assignment == ids[0]).double().mean() > 0.999
    assert found.iterations < 100


def test_one_point_far_out_spares_the_others():
    x = torch.cat([blobs(dim=2, clusters=3)[0], torch.full((1, 2), 1e9)])
    start = torch.cat([x[:3], x[-1:]])
    near, far = kmeans(x[:-1], init=start[:3]), kmeans(x, init=start)
    torch.testing.assert_close(far.centroids[:3], near.centroids)
    assert torch.equal(far.assignment[:-1], near.assignment)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_gpu_whose_kernels_do_not_run_keeps_its_tensors(batch, monkeypatch):
    """On fake tensors; a count whose length depends on data is none for them."""
    monkeypatch.setattr(
        torch, "bincount", lambda ids, minlength: torch.zeros(minlength, dtype=torch.int64, device=ids.device)
    )
    with FakeTensorMode(), torch.no_grad():
        x, centroids = (torch.empty(batch, count, 8, device="cuda") for count in (20_000, 300))
        ids = torch.zeros(batch, 20_000, dtype=torch.int32, device="cuda")
        found = [*aten.assign(x, centroids), *aten.update(x, ids, centroids)]
        found += [*aten.nearest(x[0], centroids[0]), *aten.update_one(x[0], ids[0], centroids[0])]
        assert all(tensor.is_cuda for tensor in found)


def test_one_point_that_is_infinite_spares_the_others():
    x, _ = blobs()
    x[7, 2] = float("inf")
    found = kmeans(x, init=torch.cat([x[7:8], x[:4]]), iterations=2)
    assert found.centroids[1:].isfinite().all()


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
    ids = torch.randint(2, (20,), dtype=torch.int32)
    check_compiled(update, x, ids, centroids)
    check_exported(update, x, ids, centroids)
    check_exported(update, x[None], ids[None], centroids[None])
    check_onnx(update, x, ids, centroids, path=tmp_path)


def test_errors():
    with pytest.raises(ValueError, match="11 clusters of 10 points"):
        kmeans(torch.randn(10, 2), 11)
    with pytest.raises(ValueError, match=r"expected \(N, D\) and \(K, D\)"):
        assign(torch.randn(10, 2), torch.randn(3, 4))
    with pytest.raises(ValueError, match="centroids"):
        assign(torch.randn(10, 2), torch.randn(0, 2))
    with pytest.raises(ValueError, match="init 'foo', choose k-means"):
        kmeans(torch.randn(10, 2), 3, init="foo")
    with pytest.raises(ValueError, match="7 clusters from an init of 3"):
        kmeans(torch.randn(10, 2), 7, init=torch.randn(3, 2))
    for shape in ((0, 5, 2), (0, 2), (5,)):
        with pytest.raises(ValueError, match="at least one point"):
            kmeans(torch.randn(shape), 2)


@pytest.mark.parametrize("operator", [False, True])
def test_ids_that_no_cluster_has(operator):
    x, centroids = torch.randn(2, 10, 2), torch.randn(2, 3, 2)
    call = torch.ops.zoo.kmeans_update if operator else update
    for wrong in (-1, 3, 1 << 30):
        ids = torch.zeros(2, 10, dtype=torch.int32)
        ids[1, 4] = wrong
        with pytest.raises(ValueError, match="expected 0 to 2"):
            call(x, ids, centroids)
    with pytest.raises(ValueError, match="one for each"):
        update(x, ids[:, 1:], centroids)
