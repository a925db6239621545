"""Metrics that set concepts: the correction curve and the causal effect."""

import pytest
import torch
from matplotlib import pyplot as plt

from zoo.models.backbone import Identity
from zoo.models.concept.cbm import CBM
from zoo.models.contract import Batch, Intervention
from zoo.tasks.metrics.causal_effect import CausalConceptEffect
from zoo.tasks.metrics.intervention_curve import InterventionCurve

plt.switch_backend("Agg")
COUNT = 4
GROUPS = ((0,), (1,), (2, 3))


def model_that_reads_bits() -> CBM:
    """The label is the number 0..3 that concepts 0 and 1 spell; inputs are noisy concept logits."""
    names = [f"c{index}" for index in range(COUNT)]
    model = CBM(backbone=Identity(in_channels=COUNT), num_outputs=4, concept_names=names)
    model.concept_layer.load_state_dict({"weight": torch.eye(COUNT), "bias": torch.zeros(COUNT)})
    weight = torch.zeros(4, COUNT)
    for label in range(4):
        weight[label, :2] = torch.tensor([label // 2 - 0.5, label % 2 - 0.5]) * 20
    bias = -weight.clamp_min(0).sum(1)
    model.head.load_state_dict({"0.weight": weight, "0.bias": bias})
    return model.eval()


def batch_of(size: int = 300) -> Batch:
    generator = torch.Generator().manual_seed(0)
    concepts = (torch.rand(size, COUNT, generator=generator) > 0.5).float()
    noise = torch.randn(size, COUNT, generator=generator)
    label = (2 * concepts[:, 0] + concepts[:, 1]).long()
    return {"image": 2 * concepts - 1 + 1.5 * noise, "concepts": concepts, "label": label}


def curve(**options) -> dict[str, torch.Tensor]:
    metric, batch = InterventionCurve(GROUPS, **options), batch_of()
    for rows in torch.arange(300).split(128):
        metric.update(model_that_reads_bits(), {key: value[rows] for key, value in batch.items()})
    return metric.compute()


@pytest.mark.parametrize("policy", ["random", "uncertain", "given"])
def test_correcting_helps_until_all_is_right(policy):
    found = curve(policy=policy)
    model, batch = model_that_reads_bits(), batch_of()
    plain = (model(batch["image"]).prediction.argmax(1) == batch["label"]).float().mean()
    accuracy = found["accuracy"]
    assert len(accuracy) == 4
    assert accuracy[0] == plain
    assert accuracy[-1] == 1
    assert (accuracy.diff() >= 0).all()
    assert found["gain"] == accuracy[-1] - accuracy[0]
    assert (found["std"][[0, -1]] == 0).all()


def test_setting_all_concepts_wrongly_leaves_nothing_right():
    assert curve(wrong=True)["accuracy"][-1] == 0


def test_given_order_corrects_the_named_groups():
    accuracy = curve(policy="given")["accuracy"]
    model, batch = model_that_reads_bits(), batch_of()
    mask = torch.tensor([True, False, False, False])
    wanted = model(batch["image"], Intervention(mask, batch["concepts"])).prediction.argmax(1) == batch["label"]
    assert accuracy[1] == wanted.float().mean()


def test_the_least_certain_group_comes_first():
    metric = InterventionCurve(GROUPS, policy="uncertain")
    output = model_that_reads_bits()(torch.tensor([[3.0, 0.1, 5.0, 5.0], [0.0, 4.0, 0.3, 0.3]]))
    assert metric.ranks(output, torch.arange(3)).tolist() == [[1, 0, 2], [0, 2, 1]]
    assert metric.concepts_of(torch.tensor([[False, False, True]]), 4).tolist() == [[False, False, True, True]]


def test_curve_is_drawn():
    metric = InterventionCurve(GROUPS)
    metric.update(model_that_reads_bits(), batch_of())
    figure, ax = metric.plot()
    assert ax.get_ylabel() == "accuracy"
    plt.close(figure)


def test_causal_effect_of_used_and_unused_concepts():
    metric, batch = CausalConceptEffect([f"c{index}" for index in range(COUNT)], list("0123")), batch_of()
    for rows in torch.arange(300).split(100):
        metric.update(model_that_reads_bits(), {key: value[rows] for key, value in batch.items()})
    effect = metric.compute()
    assert effect.shape == (COUNT, 4)
    assert torch.equal(effect[2:], torch.zeros(2, 4))
    torch.testing.assert_close(effect.sum(1), torch.zeros(COUNT), atol=1e-6, rtol=0)
    assert (effect[0, 2:] > 0).all()
    assert (effect[0, :2] < 0).all()
    plt.close(metric.plot()[0])
