"""NCC: how many concepts carry a decision (pytorch_concepts; after VLG-CBM, NeurIPS 2024, arXiv 2408.01432)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.tasks.metrics.plots import bars
from zoo.tasks.metrics.settings import keep_apart

ROUNDING = 1e-6
"""Share of the total by which a sum of contributions may miss it."""


def contributing_concepts(contributions: Tensor, coverage: float) -> Tensor:
    """Fewest concepts whose |weight x activation| sums to `coverage` of all; 0 where nothing contributes.

    contributions (B, K, M) -> (B, M).
    """
    ordered = contributions.abs().sort(dim=1, descending=True).values.cumsum(1)
    total = ordered[:, -1:]
    short = ordered < coverage * total * (1 - ROUNDING)
    return torch.where(total[:, 0] > 0, short.sum(1) + 1, 0)


class ContributingConcepts(Metric):
    """NCC: mean of `contributing_concepts` over samples and classes; with coverage 1 it is NEC if no activation is 0.

    groups: concepts that count as one. predicted_only: count for the predicted class of a sample, not for all.
    """

    full_state_update = False
    higher_is_better = False
    count: Tensor
    decisions: Tensor

    def __init__(
        self,
        coverage: float = 0.95,
        *,
        groups: Sequence[Sequence[int]] | None = None,
        predicted_only: bool = False,
        **options: Any,
    ):
        super().__init__(**options)
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage={coverage}: give a share above 0, at most 1")
        self.coverage, self.groups, self.predicted_only = coverage, groups, predicted_only
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("decisions", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        keep_apart(self, coverage, groups, predicted_only)

    def update(self, contributions: Tensor, prediction: Tensor) -> None:
        """contributions (B, K, M), as `ConceptModel.contributions` gives them; prediction (B, M)."""
        sizes = contributions.abs()
        if self.groups is not None:
            sizes = torch.stack([sizes[:, list(group)].sum(1) for group in self.groups], dim=1)
        found = contributing_concepts(sizes, self.coverage)
        if self.predicted_only:
            found = found.gather(1, prediction.argmax(1, keepdim=True))
        self.count += found.sum()
        self.decisions += found.numel()

    def compute(self) -> Tensor:
        return self.count / self.decisions

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        value = self.compute() if val is None else val
        return bars(value[None], [f"{self.coverage:.0%} of a decision"], label="concepts that carry it", ax=ax)
