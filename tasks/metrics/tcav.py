"""Testing with concept activation vectors (Kim et al., ICML 2018, arXiv 1711.11279)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.tasks.metrics.plots import bars
from zoo.tasks.metrics.settings import keep_apart


def directional_derivatives(
    head: Callable[[Tensor], Tensor], features: Tensor, vectors: Tensor, *, target: int
) -> Tensor:
    """Derivative of logit `target` along each concept vector: features (N, D), vectors (K, D) -> (N, K)."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = features.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(head(leaf)[:, target].sum(), leaf)
    return gradient @ vectors.to(gradient).T


class TCAV(Metric):
    """Share of samples, usually of class `target`, whose logit `target` rises along each concept vector (K, D)."""

    full_state_update = False
    positive: Tensor
    total: Tensor

    def __init__(self, vectors: Tensor, *, target: int, names: Sequence[str] | None = None, **options: Any):
        super().__init__(**options)
        self.vectors, self.target_class = vectors, target
        self.names = tuple(names or (f"concept {index}" for index in range(len(vectors))))
        self.add_state("positive", torch.zeros(len(vectors)), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        keep_apart(self, target, vectors.tolist())

    def update(self, logits_of: Callable[[Tensor], Tensor], features: Tensor) -> None:
        """logits_of: from features (B, D) to logits (B, M)."""
        slopes = directional_derivatives(logits_of, features, self.vectors, target=self.target_class)
        self.positive += (slopes > 0).sum(0)
        self.total += len(features)

    def compute(self) -> Tensor:
        return self.positive / self.total

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        return bars(self.compute() if val is None else val, self.names, label="TCAV score", ax=ax)
