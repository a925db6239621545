"""How unevenly a decision leans on its concepts (Hoyer, JMLR 5, 2004)."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.tasks.metrics.plots import bars


def hoyer(values: Tensor) -> Tensor:
    """(sqrt K - |x|_1 / |x|_2) / (sqrt K - 1) of the last dimension: 1 for one non-zero entry, 0 for equal ones."""
    root = values.shape[-1] ** 0.5
    ratio = values.norm(1, dim=-1) / values.norm(2, dim=-1)
    return torch.nan_to_num((root - ratio) / (root - 1)).clamp(0, 1)


class Sparsity(Metric):
    """Mean `hoyer` sparsity of the concepts' contributions to the predicted class: near 1 where one concept decides."""

    full_state_update = False
    higher_is_better = True
    value: Tensor
    total: Tensor

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.add_state("value", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, contributions: Tensor, prediction: Tensor) -> None:
        """contributions (B, K, M) with K > 1; prediction (B, M)."""
        chosen = contributions[torch.arange(len(prediction)), :, prediction.argmax(1)]
        self.value += hoyer(chosen).sum()
        self.total += len(prediction)

    def compute(self) -> Tensor:
        return self.value / self.total

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        value = self.compute() if val is None else val
        return bars(value[None], ["decisions"], label="Hoyer sparsity", ax=ax)
