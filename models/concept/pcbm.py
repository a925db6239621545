"""Post-hoc concept bottleneck model (Yuksekgonul, Wang, Zou, ICLR 2023, arXiv 2205.15480).

    p_k = (v_k . f(x) + b_k) / |v_k|              signed distance of the frozen features to each concept's plane
    y   = W p + c                                 W sparse: an elastic net
    y   = W p + c + W_r f(x) + c_r                PCBM-h: a residual, trained while W stays as it is

Reference code: mertyg/post-hoc-cbm @ c0ba2b7, MIT; editing after dgcnz/FACT @ b996ef0, MIT. Where they differ from the
default here:
- the released head is scikit-learn's SGDClassifier, one class against the rest (`solver="sgd"`); the paper's objective
  is the softmax's, solved here to its optimum (`solver="glm"`). The paper divides lam by (classes x concepts), the
  released code does not, nor do we;
- raw distances are of very different size from concept to concept, so that one penalty does not fit all: the head sees
  them standardised (`standardise=False` for the released form);
- for two classes the released head has one row, whose logit is added to both classes and cancels in the softmax, so
  that PCBM-h ignores every concept. Two classes have two rows here, (0, w);
- l2_penalty 0.01 is the paper's, 0.001 the released one;
- lam 1e-3 is ours, 1e-5 the released one, which the released solver does not reach: at its optimum weights of opposite
  signs cancel by the dozen, so that a head that is as right as ours on images is wrong on true concepts;
- a person's 0 and 1 are the median distances of the training images without and with the concept, by their labels or
  by the side of the plane on which they lie. Outer quantiles of the SVMs' margins, all set at once, lie where no image
  is.

A residual can undo an edit: edits are exact for PCBM, and a nudge for PCBM-h. Random directions are the control that
says what the names are worth: `source="random"`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zoo.models.backbone import Backbone
from zoo.models.concept.bank import (
    STATISTICS,
    ConceptBank,
    bank_from_clusters,
    bank_from_examples,
    bank_from_sides,
    bank_from_vectors,
    project,
    random_bank,
)
from zoo.models.concept.base import linear_contributions
from zoo.models.concept.gather import embed, gather
from zoo.models.concept.glm_saga import elastic_net
from zoo.models.concept.score_range import ScoreRange
from zoo.models.concept.text_tower import check_text_tower, encode_texts
from zoo.models.contract import Batch, Intervention, Output, Stage, ZooModel

BATCH = 64
"""Example images that are encoded at once."""


class PCBM(ZooModel):
    """Any frozen backbone as a concept bottleneck, without training it.

    Args:
        source: where the concept vectors come from: "examples" (the data's images, by their concept labels, or those in
            `concept_images`), "text" (the backbone's text tower reads `concepts`, by default the data's concept names),
            "clusters" (discovered: `clusters` directions of k-means, without labels or words) or "random".
        concept_images: a folder of examples that need not be of the data: NAME/positives and NAME/negatives, as the
            authors keep BRODEN's. Its concepts take the place of the data's.
        svm_c: the SVMs' C, of which validation accuracy takes the best.
        num_samples: examples of each side that train a concept, and as many that validate it.
        lam, l1_ratio: of the head's elastic net.
        solver, standardise: see above.
        residual: PCBM-h.
        l2_penalty: on the mean square of the residual's weights.
        seed: of the examples, clusters and random vectors. head_seed: of the SGD solver.

    `Output.concepts` is the distance on the scale from the median of the training images without the concept to the
    median of those with it (for other vectors the 5 % and 95 % quantiles of all); raw distances are in
    extras["distances"].

    Raises:
        ValueError: no concepts; words without a text tower; a task other than classification.
    """

    vectors: Tensor
    intercepts: Tensor
    norms: Tensor
    mean: Tensor
    deviation: Tensor
    accuracies: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str] = (),
        concepts: Sequence[str] | None = None,
        concept_images: str | None = None,
        source: Literal["examples", "text", "clusters", "random"] = "examples",
        clusters: int = 32,
        svm_c: Sequence[float] = (0.01, 0.1),
        num_samples: int = 50,
        lam: float = 1e-3,
        l1_ratio: float = 0.99,
        solver: Literal["glm", "sgd"] = "glm",
        standardise: bool = True,
        residual: bool = False,
        l2_penalty: float = 0.01,
        seed: int = 1,
        head_seed: int = 42,
    ):
        super().__init__()
        if concept_images is not None:
            if source != "examples" or concepts:
                raise ValueError("concept_images are for source=examples, and name their concepts themselves")
            concept_images = str(Path(concept_images).expanduser())
            shown = folder_names(concept_images)
            # in the order of the data where they are the same, so that the data's labels measure them
            concept_names = concept_names if set(shown) == set(concept_names) else shown
        discovered = tuple(f"cluster {k + 1}" for k in range(clusters)) if source == "clusters" else ()
        self.concept_names = discovered or tuple(concepts or concept_names)
        if not self.concept_names:
            raise ValueError(
                "no concepts: take data that name some, give concept_images=DIR (NAME/positives and NAME/negatives), "
                "concepts=[...] with source=text, or source=clusters"
            )
        if source == "clusters" and clusters < 1:
            raise ValueError(f"clusters={clusters}: give at least 1")
        if discovered and concepts:
            raise ValueError("concepts are words for source=text; source=clusters discovers its own")
        if source == "examples" and concepts and tuple(concepts) != tuple(concept_names):
            raise ValueError("concepts are words for source=text; source=examples learns the data's own concepts")
        if source == "text":
            check_text_tower(backbone, self.concept_names)
        self.backbone, self.num_outputs, self.source = backbone, num_outputs, source
        self.concept_images = concept_images
        self.svm_c, self.num_samples, self.lam, self.l1_ratio = tuple(svm_c), num_samples, lam, l1_ratio
        self.solver, self.standardise, self.l2_penalty = solver, standardise, l2_penalty
        self.seed, self.head_seed = seed, head_seed
        count, dim = len(self.concept_names), backbone.feature_dim
        self.register_buffer("vectors", torch.zeros(count, dim))
        self.register_buffer("intercepts", torch.zeros(count, 1))
        self.register_buffer("norms", torch.ones(count, 1))
        self.register_buffer("accuracies", torch.full((count, 2), float("nan")))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))
        self.range = ScoreRange(count)
        self.classifier = nn.Linear(count, num_outputs).requires_grad_(False)
        self.residual_classifier = nn.Linear(dim, num_outputs) if residual else None

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, D) -> logits (B, M); latent (B, K): what the head sees, standardised distances."""
        distances = project(features, self.vectors, self.intercepts, self.norms)
        latent = (self.range.intervene(distances, intervene) - self.mean) / self.deviation
        prediction = self.classifier(latent)
        if self.residual_classifier is not None:
            prediction = prediction + self.residual_classifier(features)
        return Output(prediction, self.range.unit(distances), latent, extras={"distances": distances})

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy, and for PCBM-h l2_penalty * mean(W_r^2)."""
        terms = {"cross_entropy": cross_entropy(output.prediction, batch["label"])}
        if self.residual_classifier is not None:
            terms["l2"] = self.l2_penalty * self.residual_classifier.weight.square().mean()
        return {"loss": sum(terms.values(), output.prediction.new_zeros(())), **terms}

    def stages(self) -> list[Stage]:
        """The residual's training; PCBM itself is fitted, not trained."""
        return [] if self.residual_classifier is None else [Stage("residual", trains=("residual_classifier",))]

    def check(self, datamodule: Any) -> list[str]:
        """Folders of examples that are missing or nearly empty, and images that cannot be read."""
        return [] if self.concept_images is None else datamodule.check_concept_examples(self.concept_images)

    def prepare(self, datamodule: Any) -> None:
        """Learn the concept vectors and the sparse head from the training split."""
        split = gather(self.backbone, datamodule.train_dataloader())
        if self.concept_images is None:
            self.use_bank(self._bank(split.features, split.concepts))
        else:
            self.use_bank(self._bank_from_folders(datamodule))
        distances = project(split.features, self.vectors, self.intercepts, self.norms)
        if self.concept_images is not None:
            self.range.fit_sides(distances)
        elif self.source == "examples" and split.concepts is not None:
            self.range.fit_labelled(distances, split.concepts > 0.5)
        else:
            self.range.fit(distances)
        if self.standardise:
            self.mean.copy_(distances.mean(0))
            spread = distances.std(0)
            self.deviation.copy_(torch.where(spread > 0, spread, 1.0))
        self.fit_head((distances - self.mean) / self.deviation, split.labels)

    def _bank(self, features: Tensor, concepts: Tensor | None) -> ConceptBank:
        if self.source == "text":
            words = encode_texts(self.backbone, self.concept_names, normalise=True)
            return bank_from_vectors(words, self.concept_names, source="text")
        if self.source == "clusters":
            return bank_from_clusters(features, self.concept_names, seed=self.seed)
        if self.source == "random":
            return random_bank(self.concept_names, features.shape[1], seed=self.seed)
        if concepts is None:
            raise ValueError("source=examples learns concepts from labelled images, and these data have none")
        return bank_from_examples(
            features, concepts, self.concept_names, c=self.svm_c, samples=self.num_samples, seed=self.seed
        )

    def _bank_from_folders(self, datamodule: Any) -> ConceptBank:
        def features(paths: Sequence[Any]) -> Tensor:
            batches = (paths[begin : begin + BATCH] for begin in range(0, len(paths), BATCH))
            return embed(self.backbone, map(datamodule.pictures, batches))

        found = {concept.name: concept for concept in datamodule.concept_examples(self.concept_images)}
        ordered = (found[name] for name in self.concept_names)
        sides = ((features(concept.positives), features(concept.negatives)) for concept in ordered)
        return bank_from_sides(sides, self.concept_names, c=self.svm_c, samples=self.num_samples, seed=self.seed)

    def fitted_arguments(self) -> dict[str, Any]:
        """The folder of examples is not needed again, only the names of its concepts."""
        return (
            {} if self.concept_images is None else {"concept_names": list(self.concept_names), "concept_images": None}
        )

    @torch.no_grad()
    def use_bank(self, bank: ConceptBank) -> None:
        """Take the vectors of a bank of the same concepts, and where it has margins their 10 % and 90 % quantiles."""
        self.vectors.copy_(bank.vectors)
        self.intercepts.copy_(bank.intercepts)
        self.norms.copy_(bank.norms)
        if bank.margins is not None:
            absent, present = (bank.margins[:, STATISTICS.index(name)] for name in ("q_10", "q_90"))
            self.range.set(absent, present)
        if bank.accuracies is not None:
            self.accuracies.copy_(bank.accuracies)

    @torch.no_grad()
    def fit_head(self, latent: Tensor, labels: Tensor) -> None:
        """Fit W and c on the bottleneck of the training images: latent (N, K), labels (N,)."""
        if self.solver == "sgd":
            weight, bias = sgd_head(
                latent.cpu().double().numpy(),
                labels.cpu().numpy(),
                num_classes=self.num_outputs,
                lam=self.lam,
                l1_ratio=self.l1_ratio,
                seed=self.head_seed,
            )
        else:
            head = elastic_net(latent, labels, num_classes=self.num_outputs, lam=self.lam, alpha=self.l1_ratio)
            weight, bias = head.weight, head.bias
        self.classifier.weight.copy_(weight)
        self.classifier.bias.copy_(bias)

    def contributions(self, output: Output) -> Tensor:
        """(B, K, M): how much every concept adds to every logit; of PCBM-h, without the residual."""
        return linear_contributions(output, self.classifier.weight)

    @torch.no_grad()
    def edit(self, class_index: int, concept_indices: Sequence[int], normalise: bool = True) -> None:
        """Remove concepts from a class, for every image and without data: W[y, S] = 0.

        normalise: the rest of the row is scaled so that its sum of magnitudes stays what it was.
        """
        row = self.classifier.weight[class_index]
        before = row.abs().sum()
        row[list(concept_indices)] = 0
        after = row.abs().sum()
        if normalise and after > 0:
            row *= before / after

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of the released classes (their bank as bank_vectors, bank_intercepts, bank_norms)."""
        renamed = {"bank_": "", "bottleneck.classifier.": "classifier."}
        converted = {}
        for key, value in state.items():
            prefix = next((old for old in renamed if key.startswith(old)), "")
            converted[renamed.get(prefix, "") + key.removeprefix(prefix)] = value
        return converted


def folder_names(root: str) -> tuple[str, ...]:
    """The concepts that a folder of example images has a folder for.

    Raises:
        ValueError: there is no such folder, or none in it.
    """
    if not Path(root).is_dir():
        raise ValueError(
            f"concept_images={root}: there is no such folder; give one with NAME/positives and NAME/negatives"
        )
    names = tuple(sorted(path.name for path in Path(root).iterdir() if path.is_dir() and path.name[0] != "."))
    if not names:
        raise ValueError(f"concept_images={root}: holds no folder of a concept; make NAME/positives and NAME/negatives")
    return names


def sgd_head(
    x: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    lam: float,
    l1_ratio: float = 0.99,
    max_iter: int = 10_000,
    seed: int = 42,
) -> tuple[Tensor, Tensor]:
    """The released head: stochastic gradient, logistic loss of each class against the rest.

    x (N, K), labels (N,) -> weight (M, K), bias (M,). Two classes have the rows (0, w); a class without a training
    image is never predicted.
    """
    from sklearn.linear_model import SGDClassifier

    fitted = SGDClassifier(
        loss="log_loss", penalty="elasticnet", alpha=lam, l1_ratio=l1_ratio, max_iter=max_iter, random_state=seed
    ).fit(x, labels)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    weight, bias = torch.zeros(num_classes, x.shape[1]).double(), torch.full((num_classes,), -1e3).double()
    weight[fitted.classes_] = torch.tensor(coefficients).double()
    bias[fitted.classes_] = torch.tensor(intercepts).double()
    return weight, bias
