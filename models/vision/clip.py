"""CLIP: pictures and the sentences about them, and classes by their names alone (Radford et al., ICML 2021).

arXiv 2103.00020, with exp(t) at most 100 as published:

    s_ij = exp(t) cos(image_i, text_j)
    loss = (CE(s, same) + CE(s^T, same)) / 2
    same_ij   1 / n where text j is one of the n texts of the batch that read like text i, 0 elsewhere

The last line is from UniCL (Yang et al., CVPR 2022, arXiv 2204.03610) and is CLIP's own where all texts differ. Without
it, short sentences that hold for many pictures of a batch would count against each other.

With `concept_weight` w the loss has a further term where the data have concepts, of s_ik = exp(t) cos(image_i, name_k):
w times the sum of
    CE(s_i over the concepts of a group, the one that is there), a mean over images, for each group
    CE(s_k over the images of the batch, 1 / n where the concept is there), for each concept k of no group
A small network on few pictures otherwise learns late what few sentences speak of.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from zoo.models.backbone import Backbone
from zoo.models.concept.clip_tuning import TunedClip
from zoo.models.contract import Batch, Output, Stage

LARGEST_SCALE = math.log(100)


class CLIP(TunedClip):
    """Both towers learn from captions; a class is predicted by its prompt.

    Args:
        backbone: a CLIP.
        class_names, template, descriptions: of the prompts.
        concept_names, concept_groups: of the data; they are measured by the concepts' names as they stand, those of a
            group, which exclude each other, against each other.
        concept_weight: see above; 0 is CLIP as published.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        class_names: Sequence[str],
        concept_names: Sequence[str] = (),
        concept_groups: Sequence[tuple[str, Sequence[int]]] = (),
        template: str = "a photo of a {}",
        descriptions: Mapping[str, Sequence[str]] | None = None,
        concept_weight: float = 0.0,
    ):
        super().__init__(
            backbone=backbone,
            class_names=class_names,
            template=template,
            descriptions=descriptions,
            label_smoothing=0.0,
            text_learns=True,
        )
        self.concept_weight = concept_weight
        self.groups = [(name, list(members)) for name, members in concept_groups if len(members) > 1]
        grouped = {member for _, members in self.groups for member in members}
        self.alone = [number for number in range(len(concept_names)) if number not in grouped]
        towers: Any = backbone
        words = towers.tokenize(list(concept_names)) if concept_names else torch.zeros(0, 1, dtype=torch.int64)
        self.register_buffer("concept_tokens", words)

    def forget(self) -> None:
        super().forget()
        self._concept_features: Tensor | None = None

    def class_features(self) -> Tensor:
        """As they are; the loss learns from captions, not through these."""
        if not self.training:
            return super().class_features()
        with torch.no_grad():
            return self.encode(self.tokens)

    def concept_features(self) -> Tensor:
        """Normalised features of the concepts' names, (K, D)."""
        if self._concept_features is None:
            self._concept_features = self.encode(self.get_buffer("concept_tokens")[:, None])
        return self._concept_features

    def logits(self, features: Tensor, class_features: Tensor) -> Tensor:
        clip: Any = self.backbone.clip
        scale = clip.logit_scale.clamp(max=LARGEST_SCALE).exp()
        return scale * normalize(features, dim=-1) @ class_features.mT

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The contrastive loss with `batch["caption"]`, B strings, or where the data have none with class prompts."""
        assert output.latent is not None
        towers: Any = self.backbone
        captions: Any = batch.get("caption")
        own = self.tokens[batch["label"], 0] if captions is None else towers.tokenize(captions)
        texts = own.to(output.latent.device)
        logits = self.logits(output.latent, self.encode(texts[:, None]))
        same = (texts[:, None] == texts).all(-1).to(logits)
        wanted = same / same.sum(1, keepdim=True)
        contrastive = (cross_entropy(logits, wanted) + cross_entropy(logits.mT, wanted)) / 2
        terms = {"contrastive": contrastive}
        if self.concept_weight and len(self.get_buffer("concept_tokens")) and "concepts" in batch:
            terms["concepts"] = self.concept_weight * self.concept_loss(output.latent, batch["concepts"])
        return terms | {"loss": sum(terms.values(), contrastive.new_zeros(()))}

    def concept_loss(self, features: Tensor, concepts: Tensor) -> Tensor:
        """The sum above; concepts (B, K) in [0, 1], of each group one is the largest."""
        logits = self.logits(features, self.encode(self.get_buffer("concept_tokens")[:, None]))
        truth = concepts.to(logits)
        losses = [cross_entropy(logits[:, members], truth[:, members].argmax(1)) for _, members in self.groups]
        there = truth[:, self.alone]
        share = there / there.sum(0).clamp_min(1e-6)
        losses += (-(share * logits[:, self.alone].log_softmax(0)).sum(0)).unbind()
        return torch.stack(losses).sum()

    def diagnostics(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """`<group>_acc`: how often the concept that is named most like the image, of each group, is the true one.
        `word_auc`: how often, of two images of the batch, the one with a concept is nearer to its name; mean over the
        concepts of no group."""
        if not len(self.get_buffer("concept_tokens")) or "concepts" not in batch:
            return {}
        assert output.latent is not None
        cosines = normalize(output.latent, dim=-1) @ self.concept_features().mT
        truth = batch["concepts"].to(cosines.device)
        found = {
            f"{name}_acc": (cosines[:, members].argmax(1) == truth[:, members].argmax(1)).float()
            for name, members in self.groups
        }
        areas = [
            (scores[there, None] > scores[~there]).float().mean()
            for scores, there in zip(cosines[:, self.alone].unbind(1), (truth[:, self.alone] > 0.5).unbind(1))
            if there.any() and not there.all()
        ]
        return found | ({"word_auc": torch.stack(areas).mean()} if areas else {})

    def stages(self) -> list[Stage]:
        return [Stage("towers", trains=("backbone",))]
