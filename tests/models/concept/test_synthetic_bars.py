"""What sigmoid CBM, logit CBM and CEM reach on the synthetic tasks, right, corrected and wrongly corrected.

Bars measured with the authors' code: 3,000 samples, 70/30, 128-128 extractor, Adam 3e-3, batch 256, 100 epochs.
"""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from zoo.data.synthetic import generate
from zoo.models.backbone import MLP
from zoo.models.concept.base import ConceptModel
from zoo.models.concept.cbm import CBM
from zoo.models.concept.cem import CEM
from zoo.models.contract import Batch, Intervention


class Found(NamedTuple):
    plain: float
    concepts: float
    corrected: float
    wrong: float


def build(kind: str, batch: Batch) -> ConceptModel:
    common = {
        "backbone": MLP(in_channels=batch["image"].shape[1], hidden=(128, 128), activation="LeakyReLU"),
        "num_outputs": 2,
        "concept_names": [f"c{index}" for index in range(batch["concepts"].shape[1])],
        "concept_loss_weight": 1.0,
    }
    return CEM(**common) if kind == "cem" else CBM(**common, bottleneck=kind, concept_reduction="mean")


def fit(model: ConceptModel, batch: Batch, epochs: int = 100) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(batch["label"])).split(256):
            part = {key: value[rows] for key, value in batch.items()}
            loss = model.loss(model.forward_batch(part), part)["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.finish_stage(model.stages()[0], SimpleNamespace(train_dataloader=lambda: [batch]))
    model.eval()


@torch.no_grad()
def measure(model: ConceptModel, batch: Batch) -> Found:
    everywhere = torch.ones(len(model.concept_names), dtype=torch.bool)

    def accuracy(values: torch.Tensor | None = None) -> float:
        intervention = None if values is None else Intervention(everywhere, values)
        return float((model(batch["image"], intervention).prediction.argmax(1) == batch["label"]).float().mean())

    right = (model(batch["image"]).concepts > 0.5) == (batch["concepts"] > 0.5)
    truth = batch["concepts"]
    return Found(accuracy(), float(right.float().mean()), accuracy(truth), accuracy(1 - truth))


def run(kind: str, name: str) -> Found:
    torch.manual_seed(0)
    rows, concepts, labels = (torch.from_numpy(part) for part in generate(name, samples=3000, seed=0))
    whole = {"image": rows, "concepts": concepts, "label": labels}
    train, test = ({key: value[part] for key, value in whole.items()} for part in (slice(2100), slice(2100, None)))
    model = build(kind, train)
    fit(model, train)
    found = measure(model, test)
    assert found.concepts > 0.85
    return found


@pytest.mark.parametrize("name", ["dot", "xor", "trig"])
def test_cem(name):
    found = run("cem", name)
    assert found.plain >= 0.94
    assert found.corrected >= found.plain - 0.03
    # it hardly heeds wrong concepts, its known weakness; on xor two wrong concepts are a pair it has never seen
    if name != "xor":
        assert found.wrong > 0.7


def test_sigmoid_cbm_cannot_beat_chance_on_dot():
    assert 0.4 < run("sigmoid", "dot").plain < 0.6


def test_sigmoid_cbm_with_a_linear_head_cannot_read_xor():
    assert run("sigmoid", "xor").plain < 0.8


def test_sigmoid_cbm_heeds_wrong_concepts_on_trig():
    found = run("sigmoid", "trig")
    assert found.plain > 0.78
    assert found.wrong < 0.3


@pytest.mark.parametrize("name", ["dot", "xor", "trig"])
def test_logit_cbm_leaks(name):
    """More than its concepts can say, and less once they are set right."""
    found = run("logit", name)
    assert found.plain > 0.9
    assert found.corrected < found.plain - (0.1 if name == "trig" else 0.2)
