"""DKVB: look-up, key fitting, value training, locality."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.golden.cases import Case, adapter
from zoo.models.concept.dkvb import DKVB, fetch, nearest
from zoo.tasks.supervised import select_stage


class Identity(nn.Identity):
    def __init__(self, feature_dim: int):
        super().__init__()
        self.feature_dim = feature_dim


def build(*, width=12, classes=3, codebooks=4, pairs=8, key_dim=3, **arguments) -> DKVB:
    arguments = {"splitter": "chunk", "expiry": 0.0} | arguments
    sizes = {"codebooks": codebooks, "pairs": pairs, "key_dim": key_dim}
    return DKVB(backbone=Identity(width), num_outputs=classes, **sizes, **arguments)


@adapter("dkvb", "KeyValueBottleneck.lookup", repeats=("batch", "tokens"))
def lookup(case: Case):
    a, (keys, values) = case.arguments, (case.param["keys"], case.param["values"].requires_grad_())
    width = a["num_codebooks"] * a["dim_keys"]
    sizes = {"codebooks": a["num_codebooks"], "pairs": a["pairs"], "key_dim": a["dim_keys"]}
    model = build(width=width, classes=a["dim_values"], topk=a["topk"], **sizes)
    model.load_state_dict({"keys": keys, "values": values}, strict=False)

    def features(heads):
        return heads.transpose(1, 2).flatten(2)

    x, before = case.input["x"], model.counts.clone()
    first = model.train()(features(x))
    fetched = fetch(keys, first.code)
    used = model.counts.clone()
    second = model.eval()(features(case.input["x_eval"]))
    (grad,) = torch.autograd.grad(first.latent.square().sum(), model.values)
    return {
        "output/indices": first.code[..., None],
        "output/keys": fetched,
        "output/values": first.latent,
        "output/neg_sq_dist": -(x[:, :, None] - fetched).square().sum(-1, keepdim=True),
        "output/counts_before": fetch(before[..., None], first.code),
        "output/counter_after": used,
        "output/fraction_unused": (used == 0).double().mean(),
        "output/eval_indices": second.code[..., None],
        "output/eval_values": second.latent,
        "grad/values": grad,
    }


@adapter("dkvb", "KeyValueBottleneck.ema_init")
def ema_init(case: Case):
    a = case.arguments
    sizes = {"codebooks": a["num_codebooks"], "pairs": a["pairs"], "key_dim": a["dim_keys"]}
    assert not a["threshold_ema_dead_code"]
    model = build(width=a["num_codebooks"] * a["dim_keys"], decay=a["decay"], eps=a["eps"], **sizes)
    model.keys.copy_(case.param["keys_init"])
    model.key_sum.copy_(case.param["keys_init"])
    sizes_after, keys_after = [], []
    for heads in case.input["x_steps"]:
        model.update_keys(heads)
        sizes_after.append(model.key_size.clone())
        keys_after.append(model.keys.clone())
    return {
        "output/cluster_size_steps": torch.stack(sizes_after),
        "output/keys_steps": torch.stack(keys_after),
        "output/keys_avg_final": model.key_sum,
    }


def learned_projection(case: Case) -> torch.Tensor:
    """The released linear layer, outputs key-major, as projections (C, d, k); it never receives a gradient."""
    weight = next(value for name, value in case.param.items() if name.endswith("proj.weight"))
    return weight.unflatten(0, (case.arguments["dim_keys"], case.arguments["num_codebooks"])).permute(1, 2, 0)


@adapter("dkvb", "KeyValueBottleneck.train_values")
def train_values(case: Case):
    a, x, y = case.arguments, case.input["x_train"], case.input["y_train"]
    sizes = {"codebooks": a["num_codebooks"], "pairs": a["pairs"], "key_dim": a["dim_keys"]}
    learned = a["splitting_mode"] == "learned_projection"
    splitter = "random_projection" if learned else a["splitting_mode"]
    kind = {"splitter": splitter, "topk": a["topk"], "label_smoothing": a["label_smoothing"]}
    model = build(width=a["num_channels"], classes=a["n_classes"], **sizes, **kind)
    model.keys.copy_(case.param["keys"])
    if a["values_init"] != "zeros":
        model.values.data.copy_(case.param["values"])
    if model.projection is not None:
        model.projection.copy_(learned_projection(case) if learned else case.param["rand_proj"])
    select_stage(model, model.stages()[0])
    optimizer, losses, logits = torch.optim.SGD([model.values], a["lr"]), [], []
    for _ in range(a["steps"]):
        output = model(x)
        loss = model.loss(output, {"label": y})["loss"]
        losses.append(loss.detach())
        logits.append(output.prediction.detach())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([model.values], a["grad_clip_norm"])
        optimizer.step()
    return {
        "output/logits_step0": logits[0],
        "output/loss_steps": torch.stack(losses),
        "output/split_train": model.split(x),
        "output/values_final": model.values,
        "output/test_logits": model.eval()(case.input["x_test"]).prediction,
    }


def test_a_head_equal_to_a_key_fetches_that_pair_and_ties_go_to_the_lowest():
    keys = torch.randn(3, 7, 4)
    heads = keys[:, 5][None, :, None].clone()
    assert nearest(heads, keys).flatten().tolist() == [5, 5, 5]
    keys[:, 2] = keys[:, 5]
    assert nearest(heads, keys).flatten().tolist() == [2, 2, 2]
    assert nearest(heads, keys, topk=2)[0, :, :, 0].tolist() == [[2, 5]] * 3


@pytest.mark.parametrize("topk", [1, 3])
def test_the_nearest_are_those_of_all_distances(topk):
    heads, keys = torch.randn(5, 6, 2, 4), torch.randn(6, 9, 4)
    distances = torch.cdist(heads.transpose(0, 1).flatten(1, 2), keys)
    expected = distances.topk(topk, largest=False)[1]
    assert torch.equal(nearest(heads, keys, topk=topk).permute(1, 0, 3, 2).flatten(1, 2), expected)


@pytest.mark.parametrize("topk", [1, 3])
def test_forbidden_keys_are_taken_last(topk):
    heads, keys = torch.randn(7, 3, 2, 4), torch.randn(3, 9, 4)
    allowed = torch.arange(9).expand(3, 9) % 2 == 0
    expected = nearest(heads, keys[:, ::2], topk=topk) * 2
    assert torch.equal(nearest(heads, keys, topk=topk, allowed=allowed), expected)


@pytest.mark.parametrize("topk", [1, 3])
@pytest.mark.parametrize("splitter", ["chunk", "random_projection"])
def test_exports_for_any_batch(topk, splitter):
    model = build(topk=topk, splitter=splitter)
    nn.init.normal_(model.values)
    model.train()(torch.randn(6, 12))
    model.eval()

    class Answer(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, features):
            output = self.model.forward_features(features)
            return output.prediction, output.code

    exported = torch.export.export(Answer(), (torch.randn(2, 12),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for count in (1, 5):
        features = torch.randn(count, 12)
        for found, expected in zip(exported.module()(features), Answer()(features)):
            torch.testing.assert_close(found, expected)


def test_scaling_keys_and_heads_keeps_the_code():
    heads, keys = torch.randn(5, 3, 1, 4), torch.randn(3, 9, 4)
    assert torch.equal(nearest(heads, keys), nearest(8 * heads, 8 * keys))


def test_chunks_are_a_reshape():
    features = torch.randn(5, 12)
    assert torch.equal(build().split(features), features.reshape(5, 4, 1, 3))


def test_a_sample_touches_one_row_in_each_codebook():
    model = build(codebooks=4).train()
    nn.init.normal_(model.values)
    loss = model.loss(model(torch.randn(1, 12)), {"label": torch.tensor([1])})["loss"]
    (grad,) = torch.autograd.grad(loss, model.values)
    assert (grad.abs().sum(-1) > 0).sum(1).tolist() == [1] * 4


def test_learning_one_sample_leaves_a_disjoint_one_alone():
    model = build(codebooks=2, pairs=2, key_dim=1, width=2, mask_unused=False).train()
    model.keys.copy_(torch.tensor([[[-1.0], [1.0]]] * 2))
    one, other = torch.tensor([[-1.0, -1]]), torch.tensor([[1.0, 1]])
    before = model(other).prediction.detach().clone()
    optimizer = torch.optim.SGD([model.values], 0.3)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(model(one), {"label": torch.tensor([0])})["loss"].backward()
        optimizer.step()
    assert torch.equal(model(other).prediction, before)
    assert model(one).prediction.argmax() == 0


def test_an_ema_without_memory_is_the_mean_of_each_cluster():
    model = build(codebooks=2, pairs=3, key_dim=2, width=4, decay=0.0, eps=1e-12)
    heads = torch.randn(200, 2, 1, 2)
    code = nearest(heads, model.keys)
    model.update_keys(heads)
    for c in range(2):
        for j in range(3):
            torch.testing.assert_close(model.keys[c, j], heads[:, c, 0][code[:, c, 0, 0] == j].mean(0))


def test_values_that_vote_give_the_share_of_votes():
    model = build(classes=3).eval()
    model.values.data.copy_(F.one_hot(torch.randint(3, (4, 8)), 3))
    output = model(torch.randn(5, 12))
    votes = output.latent[:, :, 0, 0].argmax(-1)
    torch.testing.assert_close(output.prediction, F.one_hot(votes, 3).float().mean(1))


def test_training_moves_values_only_and_masks_what_it_never_used():
    torch.manual_seed(0)
    model = build(splitter="random_projection", pairs=50)
    keys, x = model.keys.clone(), torch.randn(4, 12)
    select_stage(model, model.stages()[0])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["values"]
    loss = model.loss(model(x), {"label": torch.tensor([0, 1, 2, 0])})["loss"]
    loss.backward()
    assert torch.equal(model.keys, keys)
    code = model.eval()(torch.randn(30, 12)).code
    assert (fetch(model.counts[..., None], code) > 0).all()
    model.mask_unused = False
    assert (fetch(model.counts[..., None], model(torch.randn(30, 12)).code) == 0).any()


def test_expiry_revives_dead_keys_near_the_data():
    torch.manual_seed(0)
    heads = 100 + torch.randn(64, 2, 1, 3)
    dead, revived = build(codebooks=2, width=6, expiry=0.0), build(codebooks=2, width=6, expiry=0.1)
    for _ in range(5):
        dead.update_keys(heads)
        revived.update_keys(heads)
    assert len(nearest(heads, dead.keys).unique()) < len(nearest(heads, revived.keys).unique())
    assert (revived.keys.mean(-1) - 100).abs().max() < 5


@pytest.mark.parametrize("start", ["normal", "kmeans"])
def test_prepare_fits_keys_to_the_data(start):
    torch.manual_seed(0)
    model = build(pairs=4, key_start=start, key_epochs=3, expiry=0.1)
    centres = 10 * torch.randn(4, 12)
    rows = centres.repeat(25, 1) + 0.01 * torch.randn(100, 12)
    batches = [{"image": part} for part in rows.split(25)]
    model.prepare(SimpleNamespace(train_dataloader=lambda: batches))
    heads = model.split(rows)
    error = (fetch(model.keys, nearest(heads, model.keys))[:, :, 0] - heads).square().mean()
    assert error < 0.5 * heads.var()
    assert model.keys.abs().mean() > 1


def test_a_split_that_does_not_fit_is_refused_with_one_that_does():
    with pytest.raises(ValueError, match="set key_dim=3"):
        build(key_dim=5)


def test_the_published_sizes():
    with torch.device("meta"):
        model = DKVB(backbone=Identity(512), num_outputs=10)
    assert model.values.numel() == 10485760
    assert model.keys.numel() == 14680064
