"""How well a model names its concepts: what Koh et al., ICML 2020, arXiv 2007.04612, and models since then report."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from zoo.tasks.metrics.auc import area_under_roc
from zoo.tasks.metrics.plots import bars


class ConceptScores(Metric):
    """Accuracy, AUC and F1 of every concept, and how often all of a sample's concepts are right.

        accuracy_k = mean of [c_k > 1/2] = truth_k      F1_k = 2 TP / (2 TP + FP + FN)

    AUC is of the scores, not of thresholded predictions as in some released code. `compute` gives `accuracy`, `auc` and
    `f1`, each (K,), their means over concepts as `<name>_macro` (AUC over those that occur both ways), and `all_right`.
    """

    full_state_update = False
    scores: list[Tensor]
    truth: list[Tensor]

    def __init__(self, names: Sequence[str], **options: Any):
        super().__init__(**options)
        self.names = tuple(names)
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("truth", [], dist_reduce_fx="cat")

    def update(self, concepts: Tensor, truth: Tensor) -> None:
        """concepts, truth: (B, K) in [0, 1]."""
        self.scores.append(concepts.detach().float())
        self.truth.append(truth.detach().float())

    def compute(self) -> dict[str, Tensor]:
        scores, truth = dim_zero_cat(self.scores), dim_zero_cat(self.truth) > 0.5
        found = scores > 0.5
        right = found == truth
        both = (found & truth).sum(0)
        result = {
            "accuracy": right.float().mean(0),
            "auc": area_under_roc(scores, truth).float(),
            "f1": 2 * both / (found.sum(0) + truth.sum(0)).clamp_min(1),
        }
        macro = {f"{name}_macro": value.nanmean() for name, value in result.items()}
        return result | macro | {"all_right": right.all(1).float().mean()}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Accuracy of every concept."""
        value = self.compute() if val is None else val
        return bars(value["accuracy"], self.names, label="concept accuracy", ax=ax)
