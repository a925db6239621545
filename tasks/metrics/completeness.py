"""Completeness: how much of a black box's quality the concepts keep (Yeh et al., NeurIPS 2020, arXiv 1910.07969)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from zoo.tasks.metrics.auc import area_under_roc


def macro_auc(scores: Tensor, target: Tensor) -> Tensor:
    """Mean AUC over the classes that occur; scores (N, M), target (N,) classes or (N, M)."""
    wanted = F.one_hot(target, scores.shape[1]) if target.dim() == 1 else target
    return area_under_roc(scores, wanted).nanmean()


class Completeness(Metric):
    """Macro AUC of the concept model over that of a black box on the same samples: 1 keeps all."""

    full_state_update = False
    higher_is_better = True
    concept_scores: list[Tensor]
    black_box_scores: list[Tensor]
    target: list[Tensor]

    def __init__(self, **options: Any):
        super().__init__(**options)
        for name in ("concept_scores", "black_box_scores", "target"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, concept_scores: Tensor, black_box_scores: Tensor, target: Tensor) -> None:
        """Class scores of both models (B, M); target (B,) or (B, M)."""
        self.concept_scores.append(concept_scores.detach())
        self.black_box_scores.append(black_box_scores.detach())
        self.target.append(target)

    def compute(self) -> Tensor:
        target = dim_zero_cat(self.target)
        ours, theirs = dim_zero_cat(self.concept_scores), dim_zero_cat(self.black_box_scores)
        return macro_auc(ours, target) / torch.clamp(macro_auc(theirs, target), min=1e-10)
