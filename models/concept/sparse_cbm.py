"""SparseCBM (Semenov, Ivanov, Beznosikov, Gasnikov, 2024, arXiv 2404.03323): three ways to train a layer of words.

    l = exp(s) cos(x, t_k)      CLIP's logits of the image with each concept's words
    z = C l                     concept layer (K, K) without bias
    y = H z                     head (M, K) without bias
    loss = CE(y) + one of
      l1           lambda |C|_1 / K
      contrastive  (r(0) + r(1)) / 2,  r(d) = -mean diag log softmax(z, d)
      gumbel       (g(0) + g(1)) / 2,  g(d) = -mean log softmax((z + G) / tau, d),  G = -log E, E exponential
      similarity   -mean_k cos(l_k, z_k) over the batch, centred, and cubed where asked

Reference code: Andron00e/SparseCBM @ e2e4da7, Apache-2.0. Where it differs from this:
- it takes the logarithm of a Gumbel softmax sample, which underflows at CLIP's scale to an infinite loss;
- its head never learns: the optimiser is built from the backbone's parameters. Here C and H learn together;
- its text tower runs at every step; here once, in `prepare`.
"contrastive" pairs image i with concept i, a pairing that the data do not have: it is offered because it was published.
The cross entropy also trains C, so that it is as sparse as both losses agree on; `detach_cbl` leaves C to its own loss.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from zoo.models.backbone import Backbone
from zoo.models.concept.base import NO_WORDS, linear_contributions
from zoo.models.concept.gather import gather
from zoo.models.concept.score_range import ScoreRange
from zoo.models.concept.text_tower import check_text_tower, encode_texts
from zoo.models.contract import Batch, Intervention, Output, Stage, ZooModel


class SparseCBM(ZooModel):
    """CLIP's word logits through a trained concept layer to classes.

    Args:
        concepts: words, by default the data's concept names.
        training: "l1", "contrastive", "gumbel" or "similarity".
        l1: lambda, of the loss of that name.
        tau: temperature of the Gumbel softmax.
        cubed: cube the columns that the similarity compares.
        detach_cbl: leave C to its own loss.
        logit_scale: exp(s).

    `Output.concepts` is z_k on the scale from its 5 % to its 95 % quantile on the training images, found when the
    training ends; z itself is in extras["concept_logits"].

    Raises:
        ValueError: a backbone without a text tower, or no concepts.
    """

    embeddings: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str] = (),
        concepts: Sequence[str] | None = None,
        training: Literal["l1", "contrastive", "gumbel", "similarity"] = "gumbel",
        l1: float = 1e-3,
        tau: float = 1.0,
        cubed: bool = False,
        detach_cbl: bool = False,
        logit_scale: float = 100.0,
    ):
        super().__init__()
        self.concept_names = tuple(concepts or concept_names)
        check_text_tower(backbone, self.concept_names)
        if not self.concept_names:
            raise ValueError(NO_WORDS)
        self.backbone, self.method = backbone, training
        self.l1, self.tau, self.cubed, self.detach_cbl, self.logit_scale = l1, tau, cubed, detach_cbl, logit_scale
        count = len(self.concept_names)
        self.register_buffer("embeddings", torch.zeros(count, backbone.feature_dim))
        self.range = ScoreRange(count)
        self.cbl = nn.Linear(count, count, bias=False)
        self.head = nn.Linear(count, num_outputs, bias=False)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, D) -> logits (B, M); latent (B, K): the concept layer's logits that the head sees."""
        similarity = self.logit_scale * normalize(features, dim=1) @ self.embeddings.T
        return self.forward_similarity(similarity, intervene)

    def forward_similarity(self, similarity: Tensor, intervene: Intervention | None = None) -> Output:
        """From CLIP's logits with the concepts' words (B, K)."""
        scores = self.cbl(similarity)
        latent = self.range.intervene(scores, intervene)
        prediction = self.head(latent.detach() if self.detach_cbl else latent)
        extras = {"concept_logits": scores, "similarity": similarity}
        return Output(prediction, self.range.unit(scores), latent, extras=extras)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy plus the concept layer's own loss."""
        entropy = cross_entropy(output.prediction, batch["label"])
        scores = output.extras["concept_logits"]
        if self.method == "l1":
            own = self.l1 * self.cbl.weight.abs().sum() / len(self.concept_names)
        elif self.method == "contrastive":
            own = contrastive_loss(scores)
        elif self.method == "gumbel":
            own = gumbel_loss(scores, gumbel_noise(scores), gumbel_noise(scores), tau=self.tau)
        else:
            own = similarity_loss(output.extras["similarity"], scores, cubed=self.cubed)
        return {"loss": entropy + own, "cross_entropy": entropy, self.method: own}

    def stages(self) -> list[Stage]:
        """The concept layer and the head together; the towers stay as they are."""
        return [Stage(trains=("cbl", "head"))]

    def prepare(self, datamodule: Any) -> None:
        """Read the concepts' words."""
        self.embeddings.copy_(encode_texts(self.backbone, self.concept_names, normalise=True))

    def finish_stage(self, stage: Stage, datamodule: Any) -> None:
        """Find the range of every concept's logit."""
        split = gather(self.backbone, datamodule.train_dataloader())
        with torch.no_grad():
            self.range.fit(self.forward_features(split.features).extras["concept_logits"])

    def contributions(self, output: Output) -> Tensor:
        """(B, K, M): how much every concept adds to every logit."""
        return linear_contributions(output, self.head.weight)


def contrastive_loss(scores: Tensor) -> Tensor:
    """Image i belongs to concept i, over min(B, K) pairs; scores (B, K)."""
    return sum((-scores.log_softmax(dim).diagonal().mean() for dim in (0, 1)), scores.new_zeros(())) / 2


def gumbel_noise(scores: Tensor) -> Tensor:
    """-log of standard exponential draws."""
    return -torch.empty_like(scores).exponential_().log()


def gumbel_loss(scores: Tensor, over_images: Tensor, over_concepts: Tensor, *, tau: float = 1.0) -> Tensor:
    """Cross entropy between the uniform distribution and a Gumbel softmax sample, over images and over concepts.

    scores, and the noise of each direction: (B, K).
    """
    images, concepts = ((scores + over_images) / tau).log_softmax(0), ((scores + over_concepts) / tau).log_softmax(1)
    return -(images.mean() + concepts.mean()) / 2


def similarity_loss(similarity: Tensor, scores: Tensor, *, cubed: bool = False) -> Tensor:
    """Minus the mean cosine, over the batch, between CLIP's and the layer's logits of each concept; both (B, K)."""
    first, second = similarity - similarity.mean(0), scores - scores.mean(0)
    if cubed:
        first, second = first**3, second**3
    return -(normalize(first, dim=0) * normalize(second, dim=0)).sum(0).mean()
