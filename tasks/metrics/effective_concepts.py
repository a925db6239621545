"""Effective concepts of a linear head, and its accuracy at some number (VLG-CBM, NeurIPS 2024, arXiv 2408.01432)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.models.concept.nec import NONZERO, truncate
from zoo.tasks.metrics.plots import bars, curve
from zoo.tasks.metrics.settings import keep_apart


def effective_groups(weight: Tensor, groups: Sequence[Sequence[int]]) -> float:
    """NEC in groups: mean number of groups per class that hold a non-zero weight; weight (M, K)."""
    used = weight.abs() > NONZERO
    return float(torch.stack([used[:, list(group)].any(1) for group in groups], dim=1).sum(1).float().mean())


def truncate_as_released(weight: Tensor, effective: float) -> Tensor:
    """The released truncation: keep |w| from the one at place int((1 - n/K) M K) of the ascending order upwards.

    Its floating-point rounding may keep one weight more than M n, and ties all stay; `zoo.models.concept.nec.truncate`
    keeps exactly M n.
    """
    magnitudes = weight.abs()
    place = int((1 - effective / weight.shape[1]) * weight.numel())
    smallest = magnitudes.flatten().sort().values[min(max(place, 0), weight.numel() - 1)]
    return torch.where(magnitudes >= smallest, weight, 0)


class EffectiveConcepts(Metric):
    """NEC = (1/M) sum_m |{k : |W_mk| > 1e-5}|: how many concepts a class of a linear head leans on.

    `compute` gives `per_class` (M,) and their mean, `nec`.
    """

    full_state_update = False
    higher_is_better = False
    used: Tensor

    def __init__(self, class_names: Sequence[str], **options: Any):
        super().__init__(**options)
        self.class_names = tuple(class_names)
        self.add_state("used", torch.zeros(len(self.class_names)), dist_reduce_fx="mean")

    def update(self, head: torch.nn.Linear) -> None:
        """head: its weight is (M, K); the last one that was given counts."""
        self.used = (head.weight.detach().abs() > NONZERO).sum(1).float()

    def compute(self) -> dict[str, Tensor]:
        return {"per_class": self.used, "nec": self.used.mean()}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        value = self.compute() if val is None else val
        return bars(value["per_class"], self.class_names, label="effective concepts", ax=ax)


class AccuracyAtNEC(Metric):
    """Accuracy of a linear head whose smallest weights are zeroed until n concepts a class are left, for several n.

    The full yardstick also retrains sparse heads: `zoo.models.concept.nec.accuracy_at_nec`. `compute` gives
    `accuracy`, one for every n, and their `mean`.
    """

    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self, effective: Sequence[int] = (5, 10, 15, 20, 25, 30), **options: Any):
        super().__init__(**options)
        self.effective = tuple(effective)
        self.add_state("right", torch.zeros(len(self.effective)), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        keep_apart(self, self.effective)

    def update(self, latent: Tensor, head: torch.nn.Linear, label: Tensor) -> None:
        """latent (B, K): what the linear head sees; label (B,)."""
        for index, count in enumerate(self.effective):
            weight = truncate(head.weight.detach(), count)
            prediction = torch.nn.functional.linear(latent, weight, head.bias)
            self.right[index] += (prediction.argmax(1) == label).sum()
        self.total += len(label)

    def compute(self) -> dict[str, Tensor]:
        accuracy = self.right / self.total
        return {"accuracy": accuracy, "mean": accuracy.mean()}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        value = self.compute() if val is None else val
        labels = ("effective concepts per class", "accuracy")
        return curve(self.effective, value["accuracy"], labels=labels, ax=ax)
