"""Causal concept effect (Goyal, Feder, Shalit, Kim, 2019, arXiv 1907.07165)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.models.contract import Batch, Intervention, ZooModel
from zoo.tasks.metrics.plots import axes


def causal_effect(absent: Tensor, present: Tensor) -> Tensor:
    """CaCE = mean f(do c = 1) - mean f(do c = 0), class by class; both (N, M)."""
    return present.mean(0) - absent.mean(0)


class CausalConceptEffect(Metric):
    """(K, M): by how much setting each concept changes the mean probability of each class."""

    full_state_update = False
    effect: Tensor
    total: Tensor

    def __init__(self, concept_names: Sequence[str], class_names: Sequence[str], **options: Any):
        super().__init__(**options)
        self.concept_names, self.class_names = tuple(concept_names), tuple(class_names)
        shape = (len(self.concept_names), len(self.class_names))
        self.add_state("effect", torch.zeros(shape), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, model: ZooModel, batch: Batch) -> None:
        batch = model.with_features(batch)
        size, device = len(batch["features"]), batch["features"].device
        count = len(self.concept_names)
        for index in range(count):
            mask = torch.zeros(count, dtype=torch.bool, device=device)
            mask[index] = True
            absent, present = (
                model.forward_batch(batch, Intervention(mask, torch.full((count,), value, device=device))).prediction
                for value in (0.0, 1.0)
            )
            self.effect[index] += size * causal_effect(absent.softmax(1), present.softmax(1))
        self.total += size

    def compute(self) -> Tensor:
        return self.effect / self.total

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        value = self.compute() if val is None else val
        ax = axes(ax)
        limit = float(value.abs().max()) or 1.0
        picture = ax.imshow(value.cpu().numpy(), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        ax.set_yticks(range(len(self.concept_names)), self.concept_names)
        ax.set_xticks(range(len(self.class_names)), self.class_names, rotation=90)
        ax.set_xlabel("class")
        ax.set_ylabel("concept that is switched on")
        ax.figure.colorbar(picture, label="change of probability")
        return ax.figure, ax
