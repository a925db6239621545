"""The joint energy of given images as a function of class and concepts, and its descent: how an ECBM predicts.

Xu et al., ICLR 2024, arXiv 2401.14142; E_xy, E_xc and E_cy are those of `zoo.models.concept.ecbm`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from zoo.models.concept.ecbm import ECBM


class Landscape:
    """The three energies of given images at soft y and c, without the width H in any step.

    At a mixture u = sum_i p_i u_i / |sum_i p_i u_i| of embeddings, e(a, u) = base + (sum_i p_i slope_i) / sqrt(p G p)
    with g = w * ReLU(a), base = sum g + b, slope_i = g . u_i and G the Gram matrix of the embeddings.
    """

    def __init__(self, model: "ECBM", features: Tensor):
        self.model, classes = model, model.class_embedding
        self.class_gram = classes @ classes.mT
        states = model.concept_embedding.transpose(0, 1)
        self.concept_gram = states @ states.mT
        self.class_base, self.class_slope = self._against_classes(model.class_query(features), model.class_energy_of)
        pull = F.relu(model.concept_query(features))[:, None] * model.concept_energy_weight
        self.concept_base = pull.sum(-1) + model.concept_energy_bias
        self.concept_slope = torch.einsum("bkh,kjh->bkj", pull, states)
        self._hard: Tensor | None = None

    def _against_classes(self, query: Tensor, head: nn.Linear) -> tuple[Tensor, Tensor]:
        pull = F.relu(query) * head.weight[0]
        return pull.sum(-1) + head.bias, pull @ self.model.class_embedding.mT

    def class_energy(self, y_logits: Tensor) -> Tensor:
        """E_xy (B,) at logits of y (B, M)."""
        return self._mixture(self.class_base, self.class_slope, y_logits)

    def concept_energy(self, c_logits: Tensor) -> Tensor:
        """E_xc (B, K) at logits of c (B, K, 2)."""
        c = c_logits.softmax(-1)
        length = torch.einsum("bki,kij,bkj->bk", c, self.concept_gram, c).sqrt()
        return self.concept_base + (c * self.concept_slope).sum(-1) / length

    def global_energy(self, y_logits: Tensor, c_logits: Tensor) -> Tensor:
        """E_cy (B,). It takes hard concepts, so that no gradient reaches their logits through it."""
        hard = c_logits[..., 1] > c_logits[..., 0]
        if self._hard is None or not torch.equal(hard, self._hard):
            with torch.no_grad():
                query = self.model.concepts_query(hard.to(c_logits))
                self._hard, self._both = hard, self._against_classes(query, self.model.global_energy_of)
        return self._mixture(*self._both, y_logits)

    def _mixture(self, base: Tensor, slope: Tensor, y_logits: Tensor) -> Tensor:
        y = y_logits.softmax(-1)
        return base + (y * slope).sum(-1) / ((y @ self.class_gram) * y).sum(-1).sqrt()


class Adam:
    """Adam (arXiv 1412.6980) on one tensor, in place; torch.optim would load the compiler for the first prediction."""

    def __init__(self, values: Tensor, *, lr: float, eps: float):
        self.values, self.lr, self.eps, self.steps = values, lr, eps, 0
        self.first, self.second = torch.zeros_like(values), torch.zeros_like(values)

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        self.steps += 1
        self.first.lerp_(gradient, 0.1)
        self.second.lerp_(gradient.square(), 0.001)
        scale = (self.second / (1 - 0.999**self.steps)).sqrt() + self.eps
        self.values -= self.lr / (1 - 0.9**self.steps) * self.first / scale


def descend(
    landscape: Landscape,
    y: Tensor,
    c: Tensor,
    *,
    weights: Sequence[float],
    lr: Sequence[float],
    steps: int,
    patience: int | None,
    delta: float,
) -> tuple[Tensor, Tensor, int]:
    """Logits of y (B, M) and c (B, K, 2) where the descent from those given ends, and the steps taken.

    Args:
        weights: of E_xy, E_xc and E_cy; concepts without a weight stay where they are.
        lr: of y and of c.
        patience, delta: stop where the mean E_xy has not fallen by `delta` for so many steps; None takes all `steps`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        moving = [y.requires_grad_(), c.requires_grad_()] if weights[1] else [y.requires_grad_()]
        # the released descent, the one with patience, is of the batch's mean: beside its gradients epsilon is larger
        eps = 1e-8 if patience is None else 1e-8 * len(y)
        adams = [Adam(logits, lr=rate, eps=eps) for logits, rate in zip(moving, lr)]
        best, waited, step = math.inf, 0, 0
        for step in range(1, steps + 1):  # noqa: B007
            class_energy = landscape.class_energy(y)
            total = weights[0] * class_energy.sum() + weights[2] * landscape.global_energy(y, c).sum()
            if weights[1]:
                total = total + weights[1] * landscape.concept_energy(c).sum()
            for adam, gradient in zip(adams, torch.autograd.grad(total, moving)):
                adam.step(gradient)
            if patience is None:
                continue
            mean = float(class_energy.detach().mean())
            best, waited = (mean, 0) if mean < best - delta else (best, waited + 1)
            if waited >= patience:
                break
    return y.detach(), c.detach(), step
