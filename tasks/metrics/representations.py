"""What metrics of concept representations gather: the representations of many samples, and their true concepts."""

from typing import Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class RepresentationMetric(Metric):
    """Base of metrics that compare all representations with all concepts in `compute`."""

    full_state_update = False
    representations: list[Tensor]
    concepts: list[Tensor]

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.add_state("representations", [], dist_reduce_fx="cat")
        self.add_state("concepts", [], dist_reduce_fx="cat")

    def update(self, representations: Tensor, truth: Tensor) -> None:
        """representations: (B, K), or (B, K, m) where concepts are vectors; truth: the true concepts (B, K)."""
        self.representations.append(representations.detach().reshape(len(truth), truth.shape[1], -1))
        self.concepts.append(truth)

    def gathered(self) -> tuple[Tensor, Tensor]:
        """Representations (N, K, m) and true concepts (N, K) of all samples."""
        return dim_zero_cat(self.representations), dim_zero_cat(self.concepts)
