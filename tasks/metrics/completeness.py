"""Completeness: how much of a black box's quality the concepts keep (Yeh et al., NeurIPS 2020, arXiv 1910.07969)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from zoo.tasks.metrics.auc import area_under_roc
from zoo.tasks.metrics.plots import bars


def macro_auc(scores: Tensor, target: Tensor) -> Tensor:
    """Mean AUC over the classes that occur; scores (N, M), target (N,) classes or (N, M)."""
    wanted = F.one_hot(target, scores.shape[1]) if target.dim() == 1 else target
    return area_under_roc(scores, wanted).nanmean()


class Completeness(Metric):
    """AUC(concept model) / AUC(black box), both macro, on the same samples: 1 where the concepts keep all of it."""

    full_state_update = False
    higher_is_better = True
    ours: list[Tensor]
    theirs: list[Tensor]
    target: list[Tensor]

    def __init__(self, **options: Any):
        super().__init__(**options)
        for name in ("ours", "theirs", "target"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, black_box: Tensor, label: Tensor) -> None:
        """Class scores of the concept model and of the black box (B, M); label (B,) or (B, M)."""
        self.ours.append(prediction.detach())
        self.theirs.append(black_box.detach())
        self.target.append(label)

    def compute(self) -> Tensor:
        target = dim_zero_cat(self.target)
        ours, theirs = dim_zero_cat(self.ours), dim_zero_cat(self.theirs)
        return macro_auc(ours, target) / torch.clamp(macro_auc(theirs, target), min=1e-10)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        value = self.compute() if val is None else val
        return bars(value[None], ["concepts"], label="share of the black box's AUC", ax=ax)
