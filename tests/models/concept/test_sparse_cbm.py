"""SparseCBM: parity of every loss and its gradients, and the oracles of its three trainings."""

import math

import pytest
import torch

from tests.golden.cases import Case, Result, adapter
from tests.models.concept.toy import CONCEPTS, Words, accuracy, planted
from zoo.models.backbone import Identity
from zoo.models.concept.sparse_cbm import SparseCBM, contrastive_loss, gumbel_loss, gumbel_noise, similarity_loss
from zoo.models.contract import Intervention, Stage

METHODS = ("l1", "contrastive", "gumbel", "similarity")


def build(**arguments) -> SparseCBM:
    torch.manual_seed(0)
    settings = {"backbone": Words(in_channels=12), "num_outputs": 3, "concept_names": CONCEPTS} | arguments
    return SparseCBM(**settings)


@adapter("sparsecbm", "losses", repeats=("N",))
def losses(case: Case) -> Result:
    given = case.arguments
    width = case.input["img_feat"].shape[1]
    model = build(
        backbone=Words(in_channels=width),
        num_outputs=given["n_classes"],
        concept_names=[f"c{k}" for k in range(given["K"])],
        training="l1",
        l1=given["l1_lambda"],
        logit_scale=float(case.input["logit_scale"].exp()),
    )
    model.load_state_dict(case.param, strict=False)
    model.embeddings.copy_(torch.nn.functional.normalize(case.input["concept_feat"], dim=1))
    given_logits = case.input["logits_per_image"]
    own_logits = model.forward_features(case.input["img_feat"]).extras["similarity"]
    torch.testing.assert_close(own_logits, given_logits, atol=1e-6 * model.logit_scale, rtol=1e-5)
    output = model.forward_similarity(given_logits)
    terms = model.loss(output, {"label": case.input["labels"]})
    scores = output.extras["concept_logits"]
    noise = (case.input["gumbel_noise_dim0"], case.input["gumbel_noise_dim1"])
    found = {
        "loss_l1": terms["l1"],
        "loss_contrastive": contrastive_loss(scores),
        "loss_gumbel": gumbel_loss(scores, *noise, tau=given["tau"]),
        "loss_similarity_cubed0": similarity_loss(output.extras["similarity"], scores),
        "loss_similarity_cubed1": similarity_loss(output.extras["similarity"], scores, cubed=True),
    }
    result: Result = {f"output/{name}": value for name, value in found.items()}
    result |= {"output/cbl": scores, "output/logits": output.prediction, "output/ce": terms["cross_entropy"]}
    for name, value in found.items():
        result |= case.gradients(value, {f"grad/{name.removeprefix('loss_')}_cbl.weight": model.cbl.weight})
    both = {"grad/ce_cbl.weight": model.cbl.weight, "grad/ce_head.weight": model.head.weight}
    return result | case.gradients(terms["cross_entropy"], both)


def test_identity_layer_passes_clip_through():
    model = build()
    model.prepare(planted())
    torch.nn.init.eye_(model.cbl.weight)
    output = model(torch.randn(4, 12))
    torch.testing.assert_close(output.latent, output.extras["similarity"])
    assert output.latent.abs().max() <= 100


def test_l1_gradient_is_the_sign():
    model = build(training="l1", l1=0.3)
    own = model.loss(model(torch.randn(6, 12)), {"label": torch.arange(6) % 3})["l1"]
    (gradient,) = torch.autograd.grad(own, model.cbl.weight)
    torch.testing.assert_close(gradient, 0.3 / 5 * model.cbl.weight.detach().sign())


def test_contrastive_falls_to_zero_on_a_dominant_diagonal():
    assert contrastive_loss(50 * torch.eye(6)) < 1e-6
    assert contrastive_loss(torch.zeros(6, 6)) == pytest.approx(math.log(6))


def test_gumbel_is_bounded_by_the_entropy_and_stays_finite():
    scores = 100 * torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    draws = [gumbel_loss(scores, gumbel_noise(scores), gumbel_noise(scores), tau=0.5) for _ in range(20)]
    assert all(math.isfinite(value) for value in draws)
    assert torch.stack(draws).mean() >= (math.log(12) + math.log(8)) / 2
    flat = torch.zeros(12, 8)
    means = [gumbel_loss(flat, gumbel_noise(flat), gumbel_noise(flat)) for _ in range(50)]
    assert torch.stack(means).mean() >= (math.log(12) + math.log(8)) / 2


@pytest.mark.parametrize("method", METHODS)
def test_every_training_moves_layer_and_head(method):
    data = planted()
    model = build(training=method, logit_scale=10.0)
    model.prepare(data)
    x, y = (torch.stack([item[key] for item in data.train_set]) for key in ("image", "label"))
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        optimiser.zero_grad()
        terms = model.loss(model(x), {"label": y})
        terms["loss"].backward()
        optimiser.step()
    assert all((value != before[name]).any() for name, value in model.named_parameters())
    assert set(terms) == {"loss", "cross_entropy", method}
    assert accuracy(model, data) > 0.8


def test_detached_layer_learns_from_its_own_loss_only():
    model = build(training="l1", l1=0.3, detach_cbl=True)
    model.prepare(planted())
    model.loss(model(torch.randn(6, 12)), {"label": torch.arange(6) % 3})["loss"].backward()
    torch.testing.assert_close(model.cbl.weight.grad, 0.06 * model.cbl.weight.detach().sign())
    assert model.head.weight.grad.any()


def test_interventions_use_the_range_of_the_trained_layer():
    data = planted()
    model = build()
    model.prepare(data)
    model.finish_stage(Stage(), data)
    x = torch.stack([item["image"] for item in data.train_set])
    plain = model(x)
    nothing = model(x, Intervention(torch.zeros(5, dtype=torch.bool), torch.ones(5)))
    assert torch.equal(plain.prediction, nothing.prediction)
    assert 0.4 < plain.concepts.mean() < 0.6
    second = model(x, Intervention(torch.tensor([0, 1, 0, 0, 0]).bool(), torch.ones(5)))
    assert torch.equal(second.latent[:, 1], model.range.present[1].expand(len(x)))
    assert torch.equal(second.concepts, plain.concepts)
    torch.testing.assert_close(model.contributions(second).sum(1), second.prediction, atol=1e-4, rtol=1e-4)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="Identity has none"):
        build(backbone=Identity(in_channels=12))
    with pytest.raises(ValueError, match="no concepts"):
        build(concept_names=())
    with pytest.raises(ValueError, match="choose one of l1, contrastive, gumbel, similarity"):
        build(training="l2")
