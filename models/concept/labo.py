"""LaBo, language in a bottle (Yang, Panagopoulou, Zhou, Jin, Callison-Burch, Yatskar, CVPR 2023, arXiv 2211.11158).

    a_c = x . e_c                               similarity of the image with each sentence
    y   = 100 * a softmax(W)^T                  W (M, K): how much each sentence describes each class
    loss = CE(y)                                class feature softmax(W) E, compared with the image

Reference code: YueYANG1996/LaBo @ 83ed4b0, no licence; nothing of it is used here. The sentences are candidates (by a
language model) that `prepare` filters and chooses by `labo_selection`: the published objective, or the released one
under `selection="upstream"`. The equivalent fast form above is used, so that a step costs no product with E per class.
Features are not normalised, as published: logits are then in the thousands and the learning rate small (1e-5 for CLIP
ViT-L/14). With `normalise` they are cosines times 100, and a learning rate of 1e-2 to 1e-3 suits.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from zoo.models.backbone import Backbone
from zoo.models.concept.base import linear_contributions
from zoo.models.concept.gather import Gathered, gather
from zoo.models.concept.labo_selection import Selection, class_scores, positive, select
from zoo.models.concept.score_range import ScoreRange
from zoo.models.concept.text_tower import check_text_tower, encode_texts
from zoo.models.contract import Batch, Intervention, Output, ZooModel


class LaBo(ZooModel):
    """Sentences as a bottleneck between a CLIP image and its class.

    Args:
        candidates: class name -> sentences; without them every text in `concepts`, or name in `concept_names`, is a
            candidate of the class whose images it fits best.
        per_class: sentences to keep for a class.
        selection, seed: see `labo_selection.select`, as for alpha and beta (published), scale and weight (released).
        activation: of W.
        init: the value of W at a sentence's own class.
        l1_weight, div_weight: of two optional terms: the largest row sum of |W|, and minus the variance over a batch of
            each class's score.
        concepts, concept_classes: the outcome of a selection, which is then not repeated.

    `Output.concepts` is a_c on the scale from its 5 % to its 95 % quantile on the training images; a_c itself is in
    extras["similarity"].

    Raises:
        ValueError: a backbone without a text tower, or no candidate at all, or none for a class.
    """

    embeddings: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str] = (),
        class_names: Sequence[str] = (),
        candidates: Mapping[str, Sequence[str]] | None = None,
        per_class: int = 50,
        selection: Selection = "paper",
        alpha: float = 1.0,
        beta: float = 1.0,
        scale: float = 1e7,
        weight: float = 1.0,
        activation: Literal["softmax", "relu", "tanh", "none"] = "softmax",
        init: float = 1.0,
        logit_scale: float = 100.0,
        normalise: bool = False,
        l1_weight: float = 0.0,
        div_weight: float = 0.0,
        seed: int = 1,
        concepts: Sequence[str] | None = None,
        concept_classes: Sequence[int] | None = None,
    ):
        super().__init__()
        self.backbone, self.num_outputs, self.class_names = backbone, num_outputs, tuple(class_names)
        self.candidates = {name: list(texts) for name, texts in (candidates or {}).items()}
        if self.candidates and concepts and concept_classes is None:
            raise ValueError("candidates and concepts are two pools to choose from: give one of them")
        self.pool = tuple(concepts if concepts and concept_classes is None else concept_names)
        if not self.candidates and not self.pool:
            raise ValueError("no candidate sentences: give candidates={class: [sentence, ...]}, or data with concepts")
        self.per_class, self.selection, self.seed = per_class, selection, seed
        self.objective = {"alpha": alpha, "beta": beta, "scale": scale, "weight": weight}
        self.activation, self.init, self.logit_scale, self.normalise = activation, init, logit_scale, normalise
        self.l1_weight, self.div_weight = l1_weight, div_weight
        names = tuple(concepts or self._all_candidates())
        check_text_tower(backbone, names)
        self._set_concepts(names, concept_classes)

    def _all_candidates(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text for texts in self.candidates.values() for text in texts)) or self.pool

    def _set_concepts(self, names: tuple[str, ...], classes: Sequence[int] | None) -> None:
        """Take sentences, and W as it starts: `init` at each sentence's own class, 0 elsewhere."""
        self.concept_names, self.concept_classes = names, None if classes is None else list(classes)
        self.register_buffer("embeddings", torch.zeros(len(names), self.backbone.feature_dim))
        self.range = ScoreRange(len(names))
        association = torch.zeros(self.num_outputs, len(names))
        if classes is not None:
            association[torch.as_tensor(classes), torch.arange(len(names))] = self.init
        self.association = nn.Parameter(association)

    @property
    def weights(self) -> Tensor:
        """How much each sentence describes each class (M, K); rows of the softmax sum to 1."""
        if self.activation == "softmax":
            return self.association.softmax(dim=1)
        return self.association if self.activation == "none" else getattr(torch, self.activation)(self.association)

    def similarity(self, features: Tensor) -> Tensor:
        """a (B, K): dot products with the sentences, of cosines where `normalise`."""
        return (normalize(features, dim=1) if self.normalise else features) @ self.embeddings.T

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, D) -> logits (B, M); latent (B, K): the similarities that the head sees."""
        similarity = self.similarity(features)
        latent = self.range.intervene(similarity, intervene)
        prediction = self.logit_scale * (latent @ self.weights.T)
        return Output(prediction, self.range.unit(similarity), latent, extras={"similarity": similarity})

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy, and the optional terms of the released code."""
        terms = {"cross_entropy": cross_entropy(output.prediction, batch["label"])}
        if self.l1_weight:
            terms["l1"] = self.l1_weight * self.largest_row()
        if self.div_weight:
            terms["div"] = self.div_weight * self.divergence(output)
        return {"loss": sum(terms.values(), output.prediction.new_zeros(())), **terms}

    def largest_row(self) -> Tensor:
        """max_y |W_y|_1 of the association matrix before its activation."""
        return self.association.abs().sum(1).max()

    def divergence(self, output: Output) -> Tensor:
        """Minus the variance of each class's score over the batch, averaged over classes."""
        return -(output.prediction / self.logit_scale).var(0).mean()

    def prepare(self, datamodule: Any) -> None:
        """Choose the sentences by the training images, unless they were given, and find the range of each."""
        split = gather(self.backbone, datamodule.train_dataloader())
        features = normalize(split.features, dim=1) if self.normalise else split.features
        if self.concept_classes is None:
            names = self.class_names or tuple(datamodule.facts.class_names)
            chosen, classes = self._choose(Gathered(features, split.labels, None), names)
            self._set_concepts(tuple(chosen), classes)
        self.to(split.features.device)
        self.embeddings.copy_(encode_texts(self.backbone, self.concept_names, normalise=self.normalise))
        self.range.fit(self.similarity(split.features))

    def _choose(self, split: Gathered, class_names: Sequence[str]) -> tuple[list[str], list[int]]:
        texts, owners = self._owned(class_names) if self.candidates else (list(self.pool), None)
        concepts = encode_texts(self.backbone, texts, normalise=self.normalise).cpu().double().numpy()
        features, labels = split.features.cpu().double().numpy(), split.labels.cpu().numpy()
        scores = class_scores(features, labels, concepts, self.num_outputs)
        if owners is None:
            shares = positive(scores)
            owners = (shares / shares.sum(0)).argmax(1)
        objective: dict[str, Any] = self.objective
        rows = select(scores, concepts, owners, self.per_class, selection=self.selection, seed=self.seed, **objective)
        return [texts[row] for row in rows], owners[rows].tolist()

    def _owned(self, class_names: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Candidates in alphabetical order, each with the first class that names it."""
        if unknown := sorted(set(self.candidates) - set(class_names)):
            raise ValueError(f"candidates for unknown classes {', '.join(unknown[:5])}; the classes: {class_names}")
        if silent := [name for name in class_names if not self.candidates.get(name)]:
            raise ValueError(f"no candidate sentence for {', '.join(silent[:5])}: each class needs at least one")
        owner: dict[str, int] = {}
        for label, name in enumerate(class_names):
            for text in self.candidates[name]:
                owner.setdefault(text, label)
        texts = sorted(owner)
        return texts, np.array([owner[text] for text in texts])

    def fitted_arguments(self) -> dict[str, Any]:
        if self.concept_classes is None:
            return {}
        return {"concepts": list(self.concept_names), "concept_classes": list(self.concept_classes)}

    def contributions(self, output: Output) -> Tensor:
        """(B, K, M): how much every sentence adds to every logit."""
        return linear_contributions(output, self.logit_scale * self.weights)

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of the released classifier."""
        names = {"asso_mat": "association", "concepts": "embeddings"}
        return {names.get(key, key): value for key, value in state.items()}
