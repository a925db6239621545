"""Concept matrix search: zero-shot classes through words, without training (Semenov et al., 2024, arXiv 2404.03323).

    V = rownorm cos(image, concepts)      T = rownorm cos(class names, concepts)      rownorm: divide by the row's sum
    similarity   y_j = cos(V, T_j)
    cubed        y_j = cos(V^3, T_j^3)
    max          y_j = T[j, argmax_k V_k]
    column       y_j = cos(V / column sums, T / column sums), instead of rownorm

Reference code: Andron00e/SparseCBM @ e2e4da7, Apache-2.0. Where it differs from this: a cosine does not see how its
arguments are scaled, unless a row's sum is negative, which turns the sign of the released one; rows are divided by the
magnitude of their sum here (`signed` for the released form). Its column sums are those of the evaluated images, so that
a prediction depends on its neighbours; here they are those of the training images, found by `prepare`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from zoo.models.backbone import Backbone
from zoo.models.concept.base import NO_WORDS
from zoo.models.concept.gather import gather
from zoo.models.concept.score_range import ScoreRange
from zoo.models.concept.text_tower import check_text_tower, encode_texts
from zoo.models.contract import Batch, Intervention, Output, Stage, ZooModel

Variant = Literal["similarity", "cubed", "max", "column"]


class ConceptMatrixSearch(ZooModel):
    """Classes by comparing how an image and a class name each relate to the same words.

    Args:
        concepts: words, by default the data's concept names.
        class_names: as the text tower reads them.
        variant, signed: as above.

    `Output.concepts` is the cosine with each word on the scale from its 5 % to its 95 % quantile in training;
    the cosines are in extras["cosines"]. The prediction is a similarity, not a calibrated logit.

    Raises:
        ValueError: a backbone without a text tower, or no concepts or class names.
    """

    concept_vectors: Tensor
    class_vectors: Tensor
    column_sums: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        class_names: Sequence[str],
        concept_names: Sequence[str] = (),
        concepts: Sequence[str] | None = None,
        variant: Variant = "similarity",
        signed: bool = False,
    ):
        super().__init__()
        self.concept_names, self.class_names = tuple(concepts or concept_names), tuple(class_names)
        check_text_tower(backbone, [*self.concept_names, *self.class_names])
        if not self.concept_names:
            raise ValueError(NO_WORDS)
        if len(self.class_names) != num_outputs:
            raise ValueError(f"{len(self.class_names)} class names for {num_outputs} classes: give one for each")
        self.backbone, self.variant, self.signed = backbone, variant, signed
        count, dim = len(self.concept_names), backbone.feature_dim
        self.register_buffer("concept_vectors", torch.zeros(count, dim))
        self.register_buffer("class_vectors", torch.zeros(num_outputs, dim))
        self.register_buffer("column_sums", torch.ones(count))
        self.range = ScoreRange(count)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, D) -> similarities (B, M); latent (B, K): the cosines with the words."""
        cosines = cosine_matrix(features, self.concept_vectors)
        latent = self.range.intervene(cosines, intervene)
        prediction = self._parts(latent).sum(1)
        return Output(prediction, self.range.unit(cosines), latent, extras={"cosines": cosines})

    def _parts(self, cosines: Tensor) -> Tensor:
        """What every concept adds to every class: (B, K) -> (B, K, M)."""
        classes = cosine_matrix(self.class_vectors, self.concept_vectors)
        if self.variant == "max":
            best = self._row_normalise(cosines).argmax(1, keepdim=True)
            chosen = torch.zeros_like(cosines).scatter(1, best, 1.0)
            return chosen[:, :, None] * self._row_normalise(classes).T
        if self.variant == "column":
            images, classes = cosines / self.column_sums, classes / classes.sum(0)
        else:
            images, classes = self._row_normalise(cosines), self._row_normalise(classes)
        if self.variant == "cubed":
            images, classes = images**3, classes**3
        return normalize(images, dim=1)[:, :, None] * normalize(classes, dim=1).T

    def _row_normalise(self, matrix: Tensor) -> Tensor:
        return row_normalise(matrix, signed=self.signed)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy of the similarities, for comparison: nothing learns from it."""
        return {"loss": cross_entropy(output.prediction, batch["label"])}

    def stages(self) -> list[Stage]:
        """None: nothing is trained."""
        return []

    def prepare(self, datamodule: Any) -> None:
        """Read the words and class names, and look at how far the training images are from each word."""
        self.concept_vectors.copy_(encode_texts(self.backbone, self.concept_names, normalise=True))
        self.class_vectors.copy_(encode_texts(self.backbone, self.class_names, normalise=True))
        split = gather(self.backbone, datamodule.train_dataloader())
        cosines = cosine_matrix(split.features, self.concept_vectors)
        self.range.fit(cosines)
        self.column_sums.copy_(cosines.sum(0))

    def contributions(self, output: Output) -> Tensor:
        """(B, K, M): each concept's share of the cosine; they sum over concepts to the prediction."""
        assert output.latent is not None
        return self._parts(output.latent)


def cosine_matrix(rows: Tensor, concepts: Tensor) -> Tensor:
    """Cosines of rows (N, D) with concepts (K, D): (N, K)."""
    return normalize(rows, dim=1) @ normalize(concepts, dim=1).T


def row_normalise(matrix: Tensor, *, signed: bool = False) -> Tensor:
    """Rows divided by the magnitude of their sum, or by the sum itself."""
    total = matrix.sum(1, keepdim=True)
    return matrix / ((total if signed else total.abs()) + 1e-8)
