"""Oracle impurity score (Espinosa Zarlenga et al., AAAI 2023, arXiv 2301.10367)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.tasks.metrics.auc import area_under_roc
from zoo.tasks.metrics.plots import axes
from zoo.tasks.metrics.probes import Probes, halves
from zoo.tasks.metrics.representations import RepresentationMetric


def oracle_impurity(purity: Tensor, oracle: Tensor) -> Tensor:
    """OIS = ||purity - oracle||_F / (K / 2): 0 where every representation tells of other concepts just what its own
    concept does, 1 where it tells all or nothing of them. Both (K, K)."""
    return (purity - oracle).norm() / (len(purity) / 2)


def purity_matrix(
    representations: Tensor, concepts: Tensor, *, hidden: int = 32, epochs: int = 25, seed: int = 0
) -> Tensor:
    """AUC of telling concept j from representation i alone, on half of the samples: (K, K).

    representations (N, K, m), concepts (N, K).
    """
    train, test = halves(len(concepts), seed)
    inputs = representations.float().transpose(0, 1)
    probes = Probes(inputs[:, train], concepts[train].float(), hidden=hidden, epochs=epochs, seed=seed)
    logits = probes(inputs[:, test])
    return torch.stack([area_under_roc(each, concepts[test]) for each in logits])


class OracleImpurity(RepresentationMetric):
    """OIS of a model's concept representations; the matrices are fitted in `compute`, which takes a while.

    The released code fits one network for each pair of a representation and a concept; here a representation's network
    tells all concepts at once.
    """

    higher_is_better = False

    def __init__(self, names: Sequence[str], *, seed: int = 0, **options: Any):
        super().__init__(**options)
        self.names, self.seed = tuple(names), seed

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Purity of the representations, and that of the concepts themselves; pairs without an AUC count as chance."""
        given, concepts = self.gathered()
        with torch.inference_mode(False), torch.enable_grad():
            purity = purity_matrix(given.clone(), concepts.clone(), seed=self.seed)
            oracle = purity_matrix(concepts.clone()[..., None], concepts.clone(), seed=self.seed)
        return purity.nan_to_num(0.5), oracle.nan_to_num(0.5)

    def compute(self) -> Tensor:
        return oracle_impurity(*self.matrices())

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Purity minus oracle, pair by pair."""
        purity, oracle = self.matrices()
        ax = axes(ax)
        picture = ax.imshow((purity - oracle).cpu().numpy(), cmap="RdBu", vmin=-0.5, vmax=0.5)
        ax.set_xticks(range(len(self.names)), self.names, rotation=90)
        ax.set_yticks(range(len(self.names)), self.names)
        ax.set_xlabel("told concept")
        ax.set_ylabel("representation of")
        ax.figure.colorbar(picture, label="AUC beyond the true concept's")
        return ax.figure, ax
