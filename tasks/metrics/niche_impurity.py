"""Niche impurity score (Espinosa Zarlenga et al., AAAI 2023, arXiv 2301.10367)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.tasks.metrics.auc import area_under_roc
from zoo.tasks.metrics.plots import curve
from zoo.tasks.metrics.probes import Probes, halves
from zoo.tasks.metrics.representations import RepresentationMetric


def niche_impurity_curve(
    predictor: Callable[[Tensor], Tensor],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    step: float = 0.05,
) -> Tensor:
    """For beta = 0, step, ... < 1: mean AUC of telling concept i once its niche {j: |corr(z_j, c_i)| > beta} is zeroed.

    Where concepts are vectors, a vector is zeroed as a whole, by the largest correlation of its entries.

    predictor: (N, K, m) -> (N, K) scores. train, test: representations (N, K, m) and concepts (N, K); niches come from
    `train`, AUCs from `test`.
    """
    strength = correlation(*train)
    given, concepts = test
    count = math.ceil(1 / step - 1e-9)
    curve = []
    for beta in (index * step for index in range(count)):
        areas = []
        for concept in range(concepts.shape[1]):
            outside = (strength[:, concept] <= beta).to(given)
            scores = predictor(given * outside[:, None])
            areas.append(area_under_roc(scores[:, concept, None], concepts[:, concept, None])[0])
        curve.append(torch.stack(areas).nanmean())
    return torch.stack(curve)


def correlation(representations: Tensor, concepts: Tensor) -> Tensor:
    """|corr| of every representation with every concept, the largest over a vector's entries: (K, K)."""
    given = representations.double() - representations.double().mean(0)
    wanted = concepts.double() - concepts.double().mean(0)
    products = torch.einsum("njm,ni->jmi", given, wanted).abs()
    norms = given.norm(dim=0)[..., None] * wanted.norm(dim=0)
    return torch.nan_to_num(products / norms).amax(1)


class NicheImpurity(RepresentationMetric):
    """Area under `niche_impurity_curve`: high where concepts can be told from representations not their own.

    In `compute` a network of one hidden layer learns all concepts from all representations on half of the samples.
    """

    higher_is_better = False

    def __init__(self, *, step: float = 0.05, hidden: int = 20, epochs: int = 25, seed: int = 0, **options: Any):
        super().__init__(**options)
        self.step, self.hidden, self.epochs, self.seed = step, hidden, epochs, seed

    def curve(self) -> Tensor:
        given, concepts = self.gathered()
        with torch.inference_mode(False), torch.enable_grad():
            given, concepts = given.clone(), concepts.clone()
            train, test = halves(len(concepts), self.seed)
            flat = given.flatten(1)[None]
            settings = {"hidden": self.hidden, "epochs": self.epochs, "seed": self.seed}
            probe = Probes(flat[:, train], concepts[train].float(), **settings)
            parts = (given[train], concepts[train]), (given[test], concepts[test])
            return niche_impurity_curve(lambda z: probe(z.flatten(1)[None])[0], *parts, step=self.step)

    def compute(self) -> Tensor:
        return torch.trapezoid(self.curve(), dx=self.step)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        values = self.curve()
        labels = ("niche threshold", "AUC without the niche")
        return curve([index * self.step for index in range(len(values))], values, labels=labels, ax=ax)
