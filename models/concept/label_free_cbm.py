"""Label-free concept bottleneck model (Oikarinen, Das, Nguyen, Weng, ICLR 2023, arXiv 2304.06129).

    P (N, K)   what CLIP sees of each concept in each image: cosines of image and words
    q = F W_c^T                   W_c maximises mean_k sim(P_k, q_k), sim the cosine of centred, cubed columns
    c = (q - mean) / deviation    concepts, standardised on the training images
    y = c W_g^T + b_g             W_g sparse: an elastic net

Concepts are dropped that CLIP finds in no image (mean of its 5 largest cosines at most `clip_cutoff`) or that the
projection cannot follow (similarity on held-out images at most `interpretability_cutoff`). A list of words is sifted
before by length and similarity (`zoo.models.concept.word_filter`); the data's own concept names are not.

Reference code: Trustworthy-ML-Lab/Label-free-CBM @ fa2869d, no licence; nothing of it is used here. Where it differs:
- it stops the projection and drops concepts by the downstream validation split, which then no longer is one; here by a
  held-out share of the training images;
- its head is GLM-SAGA for a set number of epochs, far from the optimum at a small penalty; here the optimum, either at
  `lam` (its effective value is the released one / 0.99) or at the penalty that gives `effective_concepts` a class. The
  paper aims at 25 to 35.
Target and features come from the one backbone, which therefore reads words; `target="labels"` learns the projection
from concept labels on any backbone instead, and `target="random"` is the control that says what words are worth.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from zoo.models.backbone import Backbone
from zoo.models.concept.base import NO_WORDS, linear_contributions
from zoo.models.concept.concept_similarity import cubed_cosine
from zoo.models.concept.gather import Gathered, gather
from zoo.models.concept.glm_saga import elastic_net
from zoo.models.concept.nec import head_at, regularisation_path
from zoo.models.concept.score_range import ScoreRange
from zoo.models.concept.text_tower import check_text_tower, encode_texts
from zoo.models.concept.word_filter import sift
from zoo.models.contract import Batch, Intervention, Output, Stage, ZooModel

log = logging.getLogger(__name__)
LARGEST_BATCH = 50_000
"""Images that a step of the projection sees."""
CHECK_EVERY = 50
"""Steps between looks at the held-out images."""


class LabelFreeCBM(ZooModel):
    """A backbone's features projected on words, and a sparse head on these.

    Args:
        concepts: words, by default the data's concept names.
        target: what the projection learns from: "text", "labels" or "random" (nothing).
        longest: letters of a word of `concepts`, at most. class_cutoff, concept_cutoff: cosine of such a word with a
            class name and with another word, at most. None of each is no limit.
        clip_cutoff, interpretability_cutoff: see above.
        projection_steps, lr: of Adam.
        held_out: share of the training images that stops the projection and judges concepts.
        effective_concepts: wanted mean number of non-zero weights of a class; None, or where there are no more concepts
            than that, takes the head at `lam`.
        alpha: share of l1 in the penalty.
        seed: of hold-out and projection.

    `Output.concepts` is c on the scale from its 5 % to its 95 % quantile on the training images.

    Raises:
        ValueError: words without a text tower; no concepts, or none that pass the cutoffs.
    """

    projection: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str] = (),
        class_names: Sequence[str] = (),
        concepts: Sequence[str] | None = None,
        target: Literal["text", "labels", "random"] = "text",
        longest: int | None = 30,
        class_cutoff: float | None = 0.85,
        concept_cutoff: float | None = 0.9,
        clip_cutoff: float = 0.25,
        interpretability_cutoff: float = 0.45,
        projection_steps: int = 1000,
        lr: float = 1e-3,
        held_out: float = 0.1,
        effective_concepts: float | None = 30,
        lam: float = 7e-4,
        alpha: float = 0.99,
        seed: int = 0,
    ):
        super().__init__()
        if target == "text":
            check_text_tower(backbone, tuple(concepts or concept_names))
        if not (concepts or concept_names):
            raise ValueError(NO_WORDS)
        self.backbone, self.num_outputs, self.target = backbone, num_outputs, target
        self.clip_cutoff, self.interpretability_cutoff = clip_cutoff, interpretability_cutoff
        self.projection_steps, self.lr, self.held_out = projection_steps, lr, held_out
        self.effective_concepts, self.lam, self.alpha, self.seed = effective_concepts, lam, alpha, seed
        self.given, self.listed, self.class_names = tuple(concepts or concept_names), bool(concepts), tuple(class_names)
        self.longest, self.class_cutoff, self.concept_cutoff = longest, class_cutoff, concept_cutoff
        self.removed: dict[str, list[str]] = {}
        self._set_concepts(self.given)

    def _set_concepts(self, names: Sequence[str]) -> None:
        self.concept_names = tuple(names)
        count = len(self.concept_names)
        self.register_buffer("projection", torch.zeros(count, self.backbone.feature_dim))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))
        self.range = ScoreRange(count)
        self.classifier = nn.Linear(count, self.num_outputs).requires_grad_(False)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, D) -> logits (B, M); latent (B, K): standardised concepts."""
        scores = (features @ self.projection.T - self.mean) / self.deviation
        latent = self.range.intervene(scores, intervene)
        return Output(self.classifier(latent), self.range.unit(scores), latent, extras={"concept_scores": scores})

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy, for comparison: the head is fitted, not trained."""
        return {"loss": cross_entropy(output.prediction, batch["label"])}

    def stages(self) -> list[Stage]:
        """None: `prepare` fits everything."""
        return []

    def prepare(self, datamodule: Any) -> None:
        """Learn the projection, drop concepts, standardise, and fit the sparse head, all on the training split."""
        self.removed = {}
        split = gather(self.backbone, datamodule.train_dataloader())
        names, projection = self._projection(split)
        self._set_concepts(names)
        self.to(split.features.device)
        self.projection.copy_(projection)
        scores = split.features @ self.projection.T
        self.mean.copy_(scores.mean(0))
        self.deviation.copy_(scores.std(0).clamp_min(1e-12))
        standard = (scores - self.mean) / self.deviation
        self.range.fit(standard)
        self._fit_head(standard, split.labels)

    def _projection(self, split: Gathered) -> tuple[list[str], Tensor]:
        """The names that are kept, and their rows of W_c."""
        features, generator = split.features, torch.Generator().manual_seed(self.seed)
        start = _linear_start(len(self.given), features.shape[1], generator)
        if self.target == "random":
            return list(self.given), start.to(features)
        kept, wanted = self._targets(split)
        names, start = [self.given[k] for k in kept], start[kept]
        order = torch.randperm(len(features), generator=generator)
        cut = max(2, round(self.held_out * len(features)))
        held, rest = order[:cut].to(features.device), order[cut:].to(features.device)
        projection, similarity = train_projection(
            (features[rest], wanted[rest]),
            (features[held], wanted[held]),
            start.to(features),
            steps=self.projection_steps,
            lr=self.lr,
            generator=generator,
        )
        if self.target == "labels":
            return names, projection
        kept = self._above(similarity, "interpretability_cutoff", names, "not interpretable")
        return [names[k] for k in kept], projection[kept]

    def _targets(self, split: Gathered) -> tuple[list[int], Tensor]:
        """Indices of the K concepts that some image shows, and P (N, K), or the concept labels in its place."""
        features = split.features
        if self.target == "labels":
            if split.concepts is None:
                raise ValueError("target=labels learns from concept labels, and these data have none")
            return list(range(len(self.given))), split.concepts.to(features)
        words = encode_texts(self.backbone, self.given, normalise=True)
        sifted = list(range(len(self.given)))
        if self.listed:
            sifted, removed = sift(
                self.given,
                words,
                self._classes(),
                longest=self.longest,
                class_cutoff=self.class_cutoff,
                concept_cutoff=self.concept_cutoff,
            )
            for why, gone in removed.items():
                self._note(gone, why)
        cosines = normalize(features, dim=1) @ words[sifted].T
        largest = cosines.topk(min(5, len(cosines)), dim=0).values.mean(0)
        kept = self._above(largest, "clip_cutoff", [self.given[k] for k in sifted], "in no image")
        return [sifted[k] for k in kept], cosines[:, kept]

    def _classes(self) -> Tensor | None:
        """The class names as vectors (M, D), where the text tower knows their words."""
        try:
            return encode_texts(self.backbone, self.class_names, normalise=True) if self.class_names else None
        except ValueError as error:
            log.warning("words are not compared with the classes: %s", error)
            return None

    def _above(self, values: Tensor, cutoff: str, names: Sequence[str], why: str) -> list[int]:
        """Indices of the concepts `names` whose values are above a cutoff; the others are noted.

        Raises:
            ValueError: none is.
        """
        limit, passed = getattr(self, cutoff), (values > getattr(self, cutoff)).tolist()
        if not any(passed):
            best = float(values.max())
            raise ValueError(f"no concept is above {cutoff}={limit:g}: lower it (the best has {best:.3g})")
        self._note([name for name, stays in zip(names, passed) if not stays], f"{why}, {cutoff}={limit:g}")
        return [k for k, stays in enumerate(passed) if stays]

    def _note(self, names: list[str], why: str, shown: int = 12) -> None:
        if names:
            self.removed[why] = names
            more = f" and {len(names) - shown} more" if len(names) > shown else ""
            many = f"{len(names)} concept{'s' if len(names) > 1 else ''}"
            log.warning("%s removed (%s): %s%s", many, why, ", ".join(names[:shown]), more)

    @torch.no_grad()
    def _fit_head(self, scores: Tensor, labels: Tensor) -> None:
        wanted = self.effective_concepts
        if wanted is None or wanted >= scores.shape[1]:
            head = elastic_net(scores, labels, num_classes=self.num_outputs, lam=self.lam, alpha=self.alpha)
        else:
            heads = regularisation_path(scores, labels, num_classes=self.num_outputs, alpha=self.alpha, densest=wanted)
            head = head_at(heads, wanted)
        self.classifier.weight.copy_(head.weight)
        self.classifier.bias.copy_(head.bias)

    def fitted_arguments(self) -> dict[str, Any]:
        return {"concepts": list(self.concept_names)}

    def remarks(self) -> dict[str, Any]:
        """`removed_concepts`: why, and which."""
        return {"removed_concepts": self.removed} if self.removed else {}

    def contributions(self, output: Output) -> Tensor:
        """(B, K, M): how much every concept adds to every logit."""
        return linear_contributions(output, self.classifier.weight)

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of the released files W_c.pt, W_g.pt, b_g.pt, proj_mean.pt and proj_std.pt."""
        names = {"W_c": "projection", "W_g": "classifier.weight", "b_g": "classifier.bias"}
        converted = {names[key]: value for key, value in state.items() if key in names}
        flat = {"proj_mean": "mean", "proj_std": "deviation"}
        return converted | {flat[key]: value.flatten() for key, value in state.items() if key in flat}


def train_projection(
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    start: Tensor,
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Maximise the mean cubed cosine by Adam until it falls on held-out images.

    train, held_out: features (N, D) and targets (N, K). start: W_c (K, D).

    Returns:
        the best W_c, and each concept's similarity on the held-out images.
    """
    features, wanted = train
    weight = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=lr)
    best, similarity = weight.detach().clone(), cubed_cosine(held_out[1], held_out[0] @ weight.detach().T)
    for step in range(1, steps + 1):
        seen, aim = features, wanted
        if len(features) > LARGEST_BATCH:
            rows = torch.randperm(len(features), generator=generator)[:LARGEST_BATCH].to(features.device)
            seen, aim = features[rows], wanted[rows]
        optimiser.zero_grad()
        (-cubed_cosine(aim, seen @ weight.T).mean()).backward()
        optimiser.step()
        if step % CHECK_EVERY == 0 or step == steps:
            current = cubed_cosine(held_out[1], held_out[0] @ weight.detach().T)
            if current.mean() < similarity.mean():
                break
            best, similarity = weight.detach().clone(), current
    return best, similarity


def _linear_start(outputs: int, inputs: int, generator: torch.Generator) -> Tensor:
    """As torch starts a linear layer: uniform within 1 / sqrt(inputs)."""
    return (2 * torch.rand(outputs, inputs, generator=generator) - 1) / inputs**0.5
