"""retrieval_head: parity, equal clusters, the exact head as a limit, sampling, registration, export, resources."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.golden.cases import Case, adapter
from tests.kernels.harness import (
    check_ahead,
    check_compiled,
    check_dynamic,
    check_exported,
    check_onnx,
    close,
    interpreter_test,
)
from zoo.kernels.retrieval_head import arrange, aten, balanced_clusters, reference, retrieve, sample, similarities
from zoo.kernels.retrieval_head.clusters import offers

test_interpreter = interpreter_test("interpret_retrieval_head.py")


@adapter("flashhead", "flashhead", repeats=("cap", "clusters", "dim", "tokens", "vocab"))
def flashhead(case: Case) -> dict:
    hidden, weight, groups = case.input["hidden"], case.input["weight"], case.input["vocab_maps"].long()
    head = arrange(weight, groups)
    head = head._replace(directions=F.normalize(case.input["centroids"], dim=-1).to(weight.dtype))
    near = similarities(hidden, head)
    found = retrieve(hidden, head, probes=case.arguments["probes"])
    dense = retrieve(hidden, head, probes=len(groups)).label
    home = (groups == dense[:, :, None]).any(-1).long().argmax(1)
    rank = (near > near.gather(1, home[:, None])).sum(1)
    return {
        "output/token": found.label[:, 0],
        "output/best_logit": found.score[:, 0],
        "output/dense_token": dense[:, 0],
        "output/cluster_sims": near,
        "output/top_clusters_sorted": near.topk(case.arguments["probes"]).indices.sort().values,
        "output/recall_by_probes": torch.stack([(rank < p).double().mean() for p in range(1, len(groups) + 1)]),
    }


def classes(count: int = 200, dim: int = 16, topics: int = 12, *, seed: int = 0) -> Tensor:
    """Class embeddings around a few topics."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(topics, dim, generator=generator)
    return middles[torch.arange(count) % topics] + 0.5 * torch.randn(count, dim, generator=generator)


def features(weight: Tensor, count: int = 100, *, noise: float = 0.5, seed: int = 1) -> Tensor:
    """Features near the classes they belong to."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(weight), (count,), generator=generator)
    return weight[chosen] + noise * torch.randn(count, weight.shape[1], generator=generator)


@pytest.mark.parametrize(("count", "capacity"), [(200, 16), (192, 16), (37, 5), (3, 8), (2, 1)])
def test_clusters_hold_every_class_once_and_none_is_too_large(count, capacity):
    groups = balanced_clusters(classes(count), capacity, generator=torch.Generator().manual_seed(0))
    assert groups.shape == (-(-count // capacity), capacity)
    assert torch.equal(groups[groups >= 0].sort().values, torch.arange(count))


def test_clusters_of_equal_size_are_nearly_as_tight_as_free_ones():
    weight = F.normalize(classes(192), dim=-1)
    groups = balanced_clusters(weight, 16, generator=torch.Generator().manual_seed(0))
    tight = weight[groups].mean(1).norm(dim=-1).mean()
    loose = weight[torch.randperm(192).view(12, 16)].mean(1).norm(dim=-1).mean()
    assert tight > loose + 0.4


def test_rows_that_lose_most_go_first():
    points = torch.tensor([[1.0, 0.0], [0.9, 0.5], [1.0, 0.1]])
    assert offers(points, torch.eye(2), 2).tolist() == [0, 1, 0]


def test_all_clusters_are_the_exact_head():
    weight = classes()
    hidden = features(weight)
    head = arrange(weight, balanced_clusters(weight, 16))
    score, label = retrieve(hidden, head, probes=len(head.directions), k=5)
    want = (hidden @ weight.t()).topk(5)
    assert torch.equal(label, want.indices)
    close(score, want.values, tolerance=1e-5)


def test_recall_rises_with_the_probes_and_scores_are_exact():
    weight = classes()
    hidden = features(weight)
    head = arrange(weight, balanced_clusters(weight, 8, generator=torch.Generator().manual_seed(0)))
    logits = hidden @ weight.t()
    recalls, previous = [], torch.full((len(hidden), 1), -torch.inf)
    for probes in range(1, len(head.directions) + 1):
        score, label = retrieve(hidden, head, probes=probes)
        close(score, logits.gather(1, label), tolerance=1e-5)
        assert (score >= previous - 1e-5).all()
        recalls.append(float((label[:, 0] == logits.argmax(1)).float().mean()))
        previous = score
    assert recalls == sorted(recalls)
    assert recalls[3] > 0.9
    assert recalls[-1] == 1.0


def test_the_order_of_clusters_and_the_batch_do_not_matter():
    weight = classes()
    hidden = features(weight)
    groups = balanced_clusters(weight, 16)
    found = retrieve(hidden, arrange(weight, groups), probes=3, k=4)
    shuffled = retrieve(hidden, arrange(weight, groups[torch.randperm(len(groups))]), probes=3, k=4)
    alone = [retrieve(row[None], arrange(weight, groups), probes=3, k=4).label[0] for row in hidden]
    assert torch.equal(found.label, shuffled.label)
    assert torch.equal(found.label, torch.stack(alone))
    nested = retrieve(hidden.view(4, 25, -1), arrange(weight, groups), probes=3, k=4)
    assert torch.equal(nested.label.flatten(0, 1), found.label)


@pytest.mark.parametrize("k", [1, 3])
def test_equal_logits_give_the_smallest_class(k):
    weight = torch.ones(40, 4)
    head = arrange(weight, torch.randperm(40, generator=torch.Generator().manual_seed(0)).view(10, 4))
    assert torch.equal(retrieve(torch.ones(2, 4), head, probes=10, k=k).label, torch.arange(k).expand(2, k))


def test_logits_far_below_zero():
    weight = F.normalize(classes(), dim=-1) - 5.0
    hidden = features(weight).abs() + 3.0
    head = arrange(weight, balanced_clusters(weight, 16))
    score, label = retrieve(hidden, head, probes=2)
    assert (score < 0).all()
    assert (label >= 0).all()


def test_some_classes_are_scored_always():
    weight = classes()
    hidden = -features(weight)
    groups = balanced_clusters(weight, 16)
    head = arrange(weight, groups, always=(3, 150, 7))
    assert torch.equal(head.classes[head.classes >= 0].sort().values, torch.arange(200))
    score, _ = retrieve(hidden, head, probes=1)
    assert (score[:, 0] >= (hidden @ weight[[3, 150, 7]].t()).amax(1) - 1e-5).all()
    everything = retrieve(hidden, head, probes=len(groups), k=5)
    assert torch.equal(everything.label, (hidden @ weight.t()).topk(5).indices)


def test_samples_follow_the_exact_head_where_all_is_probed():
    weight = classes(20, 4)
    hidden = torch.randn(4, generator=torch.Generator().manual_seed(2))
    head = arrange(weight, balanced_clusters(weight, 6))
    draws = sample(
        hidden.expand(40_000, 4), head, probes=4, temperature=1.7, generator=torch.Generator().manual_seed(3)
    )
    shares = torch.bincount(draws.label[:, 0], minlength=20) / 40_000
    torch.testing.assert_close(shares, (weight @ hidden / 1.7).softmax(0), atol=0.01, rtol=0)
    close(draws.score[:, 0], (weight @ hidden)[draws.label[:, 0]], tolerance=1e-5)


def test_samples_choose_clusters_by_their_means():
    weight = classes(64, 4)
    hidden = torch.randn(4, generator=torch.Generator().manual_seed(2))
    groups = balanced_clusters(weight, 8)
    head = arrange(weight, groups)
    draws = sample(hidden.expand(40_000, 4), head, probes=1, temperature=2.0).label
    home = (groups[None] == draws[:, :, None]).any(-1).long().argmax(1)
    shares = torch.bincount(home, minlength=8) / 40_000
    torch.testing.assert_close(shares, (weight[groups].mean(1) @ hidden / 2.0).softmax(0), atol=0.015, rtol=0)


@pytest.mark.parametrize("path", ["_sampled", "_dense", "_widened"])
def test_paths_equal_the_reference(path):
    torch.manual_seed(0)
    rows, hidden, probes = torch.randn(30, 5, 12), torch.randn(70, 12), torch.randint(30, (70, 11))
    close(getattr(aten, path)(hidden, rows, probes), reference.probed_logits(hidden, rows, probes), tolerance=1e-6)
    nothing = getattr(aten, path)(hidden[:0], rows, probes[:0])
    assert nothing.shape == (0, 11, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes_and_autocast(dtype):
    weight = classes().to(dtype)
    head = arrange(weight, balanced_clusters(weight, 16))
    hidden = features(classes())
    wide = torch.promote_types(dtype, torch.float32)
    want = (hidden.to(dtype).to(wide) @ weight.to(wide).t()).amax(1, keepdim=True)
    found = retrieve(hidden, head, probes=len(head.directions))
    assert found.score.dtype == wide
    close(found.score, want, tolerance=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(retrieve(hidden, head, probes=len(head.directions)).score, found.score)


def test_operator_is_registered_soundly():
    rows, hidden, probes = torch.randn(30, 5, 12), torch.randn(7, 12), torch.randint(30, (7, 3))
    torch.library.opcheck(torch.ops.zoo.probed_logits.default, (hidden, rows, probes))
    torch.library.opcheck(torch.ops.zoo.probed_logits.default, (hidden.bfloat16(), rows.bfloat16(), probes))


@pytest.mark.parametrize("k", [1, 3])
def test_compile_and_export(k, tmp_path):
    weight = classes()
    head = arrange(weight, balanced_clusters(weight, 16), always=(5,))
    hidden = features(weight, 6)

    def call(hidden: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(retrieve(hidden, head, probes=4, k=k))

    check_compiled(call, hidden)
    check_dynamic(call, (hidden,), (features(weight, 9),))
    check_exported(call, hidden)
    check_onnx(call, hidden, path=tmp_path)


def test_export_for_any_number_of_features():
    weight = classes()
    head = arrange(weight, balanced_clusters(weight, 16), always=(5,))
    hidden = features(weight, 6)

    class Head(torch.nn.Module):
        def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
            return tuple(retrieve(hidden, head, probes=4, k=3))

    program = torch.export.export(Head(), (hidden,), dynamic_shapes=({0: torch.export.Dim("features")},))
    score, label = program.module()(hidden[:2])
    want = retrieve(hidden[:2], head, probes=4, k=3)
    close(score, want.score)
    assert torch.equal(label, want.label)


def test_errors():
    weight = classes()
    groups = balanced_clusters(weight, 16)
    head = arrange(weight, groups)
    with pytest.raises(ValueError, match="expected"):
        balanced_clusters(weight, 0)
    with pytest.raises(ValueError, match="each of 200 classes once"):
        arrange(weight, groups[1:])
    with pytest.raises(ValueError, match="outside 0 to 199"):
        arrange(weight, groups, always=(200,))
    with pytest.raises(ValueError, match=r"expected \(..., 16\)"):
        retrieve(weight[:, 1:], head)
    with pytest.raises(ValueError, match="14 probes of 13 clusters"):
        retrieve(weight, head, probes=14)
    with pytest.raises(ValueError, match="k = 17 of 16"):
        retrieve(weight, head, probes=1, k=17)
    with pytest.raises(ValueError, match="must be positive"):
        sample(weight, head, temperature=0.0)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_resources(target):
    from zoo.kernels.retrieval_head.triton import configurations

    check_ahead(configurations(amd=target.startswith("gfx")), target, registers=128)
