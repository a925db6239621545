"""PCBM-h: parity with the released hybrid, and what its residual may and may not do."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.golden.cases import Case, Result, adapter
from tests.models.concept.test_pcbm import build, numbered
from tests.models.concept.toy import accuracy, module, planted
from zoo.models.concept.bank import fit_vector
from zoo.models.concept.pcbm import PCBM
from zoo.models.contract import Intervention


@adapter("pcbm", "PosthocHybridCBM")
def hybrid(case: Case) -> Result:
    given, result = case.arguments, {}
    for k in range(given["K"]):
        sides = [case.input[f"concept{k}_{side}"].numpy() for side in ("pos", "neg")]
        found = fit_vector(*sides, c=given["svm_C"], train=given["n_samples"])
        result[f"output/concept{k}_cav"] = torch.tensor(found.vector)[None]
        result[f"output/concept{k}_intercept"] = torch.tensor([found.intercept])
        result[f"output/concept{k}_acc"] = torch.tensor(found.accuracy)
        result[f"output/concept{k}_margin_info"] = torch.tensor(found.margins)
    model = build(
        given["D"],
        given["n_classes"],
        concept_names=numbered(given["K"]),
        residual=True,
        l2_penalty=given["l2_penalty"],
    )
    model.load_state_dict(PCBM.convert_state(case.param), strict=False)
    features = case.input["emb"].requires_grad_()
    output = model.forward_features(features)
    loss = model.loss(output, {"label": case.input["labels"]})["loss"]
    residual = model.residual_classifier
    variables = {
        "grad/emb": features,
        "grad/residual_classifier.weight": residual.weight,
        "grad/residual_classifier.bias": residual.bias,
    }
    return result | {
        "output/projection": output.extras["distances"],
        "output/pcbm_logits": model.classifier(output.latent),
        "output/pcbmh_logits": output.prediction,
        "output/pcbmh_loss": loss,
        **case.gradients(loss, variables),
    }


def test_residual_starts_from_pcbm_and_leaves_its_head_alone():
    model = build(residual=True)
    x, labels = torch.randn(6, 12), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.nn.init.zeros_(model.residual_classifier.weight)
    torch.nn.init.zeros_(model.residual_classifier.bias)
    output = model(x)
    assert torch.equal(output.prediction, model.classifier(output.latent))
    terms = model.loss(output, {"label": labels})
    terms["loss"].backward()
    assert model.classifier.weight.grad is None
    assert model.residual_classifier.weight.grad.any()
    assert terms["l2"] == 0
    torch.testing.assert_close(terms["loss"], cross_entropy(output.prediction, labels))
    assert [stage.trains for stage in model.stages()] == [("residual_classifier",)]


def test_a_correction_speaks_beside_the_residual():
    data = planted()
    model = build(num_samples=20, residual=True)
    model.prepare(data)
    x = torch.stack([item["image"] for item in data.train_set])
    plain = model(x)
    nothing = model(x, Intervention(torch.zeros(5, dtype=torch.bool), torch.ones(5)))
    assert torch.equal(plain.prediction, nothing.prediction)
    corrected = model(x, Intervention(torch.tensor([0, 1, 0, 1, 1]).bool(), torch.ones(5)))
    assert torch.equal(corrected.concepts, plain.concepts)
    torch.testing.assert_close(
        corrected.prediction - plain.prediction, model.classifier(corrected.latent) - model.classifier(plain.latent)
    )
    assert (corrected.prediction.softmax(1)[:, 2] - plain.prediction.softmax(1)[:, 2]).mean() > 0.1


def test_the_residual_sees_what_no_concept_names():
    """With random directions for concepts the head guesses; a few steps of the residual do not."""
    data = planted()
    model = build(concept_names=("noise",), source="random", residual=True)
    model.prepare(data)
    x, labels = (torch.stack([item[key] for item in data.train_set]) for key in ("image", "label"))
    before, head = accuracy(model, data), model.classifier.weight.clone()
    optimizer = torch.optim.Adam(model.residual_classifier.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(model(x), {"label": labels})["loss"].backward()
        optimizer.step()
    assert before < 0.75 < 0.9 < accuracy(model, data)
    assert torch.equal(model.classifier.weight, head)


@pytest.mark.parametrize("solver", ["glm", "sgd"])
def test_two_classes_hear_their_concepts(solver):
    """The released hybrid adds one logit to both classes, where it cancels."""
    data = planted()
    x, labels = (torch.stack([item[key] for item in data.train_set]) for key in ("image", "label"))
    model = build(classes=2, residual=True, source="random", solver=solver, lam=1e-3)
    model.prepare(module(x, (labels == 2).long(), None, classes=("day", "night")))
    before = model(x).prediction.softmax(1)
    model.classifier.weight[1, 0] += 1
    assert (model(x).prediction.softmax(1) - before).abs().max() > 0.05
