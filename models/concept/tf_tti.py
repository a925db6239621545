"""Training-free test-time improvement of a concept bottleneck (TF-TTI): He et al., MICCAI 2025, arXiv 2506.18070.

A model with concepts c and a linear head y = W c + b meets a new domain (another stain, camera, colour). A few images
of each class, with class labels only, tell which concepts mislead, without any gradient step:

1. mask: of the images of class t taken for class p, concept k pushes the wrong way by r_k = mean (W_pk - W_tk) c_k; the
   largest are masked until the mean wrong margin is gone, never one whose loss costs support accuracy;
2. amplify: concepts that speak for a class, W_tk - max over others > 0, but are weaker on the new images of that class
   than on its training images, are multiplied by the ratio, at most `max_gain`;
3. both limits are chosen by leave-one-out accuracy on the support images; where nothing helps, nothing is changed.

The abstract says as much as points 1 and 2; the formulas are a reconstruction, since neither the authors' code nor the
full text could be read. The trained model stays as it is, and on its own domain it answers bit for bit as before.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.models.backbone import Backbone
from zoo.models.concept.base import ConceptModel, Groups
from zoo.models.concept.cbm import CBM
from zoo.models.contract import Batch, Intervention, Output, Stage

FOLDS = 50
"""Leave-one-out up to so many support images, then so many folds."""


@dataclass(frozen=True)
class ClassStatistics:
    """Mean and standard deviation of each concept on the training images of each class, (M, K) both."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Repair:
    """c' = fill where masked, gain * c elsewhere; all (K,)."""

    masked: Tensor
    gain: Tensor
    fill: Tensor

    @classmethod
    def identity(cls, fill: Tensor) -> "Repair":
        return cls(torch.zeros_like(fill, dtype=torch.bool), torch.ones_like(fill), fill)

    def apply(self, concepts: Tensor) -> Tensor:
        """What the head sees of concepts (B, K) instead."""
        return torch.where(self.masked, self.fill, self.gain * concepts)


@dataclass(frozen=True)
class Support:
    """What the support images are to a linear head: concepts (N, K) as the head sees them, labels (N,), its weights
    (M, K), and offset (N, M), the part of the logits that concepts do not make."""

    concepts: Tensor
    labels: Tensor
    weight: Tensor
    offset: Tensor

    def rows(self, chosen: Tensor) -> "Support":
        return replace(self, concepts=self.concepts[chosen], labels=self.labels[chosen], offset=self.offset[chosen])

    def logits(self, repair: Repair) -> Tensor:
        return repair.apply(self.concepts) @ self.weight.mT + self.offset

    def right(self, repair: Repair) -> Tensor:
        return self.logits(repair).argmax(1) == self.labels


def class_statistics(concepts: Tensor, labels: Tensor, *, num_classes: int) -> ClassStatistics:
    """Of concepts (N, K) as the head sees them and labels (N,); a class without images has mean and deviation 0."""
    member = torch.nn.functional.one_hot(labels, num_classes).to(concepts)
    count = member.sum(0).clamp(min=1)[:, None]
    mean = member.mT @ concepts / count
    return ClassStatistics(mean, (member.mT @ concepts.square() / count - mean.square()).clamp(min=0).sqrt())


def fit_repair(
    support: Support,
    source: ClassStatistics,
    *,
    max_masked: float = 0.1,
    max_gain: float = 3.0,
    speakers: int = 3,
    mask_value: Literal["zero", "source_mean"] = "zero",
) -> Repair:
    """The repair for these support images.

    Args:
        max_masked: share of the concepts that may be masked, at least one.
        max_gain: limit of the amplification.
        speakers: concepts that speak most for a class, of which weak ones are amplified.
        mask_value: what the head sees of a masked concept: absence, or the mean of the training images.
    """
    fill = source.mean.mean(0) if mask_value == "source_mean" else torch.zeros_like(source.mean[0])
    identity = Repair.identity(fill)
    if support.right(identity).all():
        return identity
    most = max(1, round(max_masked * len(fill)))
    folds = torch.arange(len(support.labels)) % FOLDS
    right: dict[tuple[int, float], int] = {}
    for fold in folds.unique():
        held_out = support.rows(folds == fold)
        for setting, repair in _candidates(support.rows(folds != fold), source, fill, most, max_gain, speakers).items():
            right[setting] = right.get(setting, 0) + int(held_out.right(repair).sum())
    # the mildest of the best
    best = max(right, key=lambda setting: (right[setting], -setting[0], -setting[1]))
    if right[best] <= int(support.right(identity).sum()):
        return identity
    return _candidates(support, source, fill, most, max_gain, speakers)[best]


def _candidates(
    support: Support, source: ClassStatistics, fill: Tensor, most: int, max_gain: float, speakers: int
) -> dict[tuple[int, float], Repair]:
    """(concepts masked at most, largest gain) -> the repair within these limits."""
    nothing = Repair.identity(fill)
    masks = {0: nothing.masked} | {limit: _misleading(support, fill, limit) for limit in sorted({1, most})}
    gains = {1.0: nothing.gain, max_gain: _weakened(support, source, speakers, max_gain)}
    return {
        (limit, largest): Repair(masked, torch.where(masked, 1.0, gain), fill)
        for limit, masked in masks.items()
        for largest, gain in gains.items()
    }


def _misleading(support: Support, fill: Tensor, most: int) -> Tensor:
    """Concepts to mask, (K,), the most frequent confusion of two classes first."""
    repair = Repair.identity(fill)
    predicted = support.logits(repair).argmax(1)
    wrong = predicted != support.labels
    pairs, counts = torch.stack([support.labels, predicted], 1)[wrong].unique(dim=0, return_counts=True)
    for true, taken in pairs[counts.argsort(descending=True, stable=True)].tolist():
        rows = (support.labels == true) & (predicted == taken)
        lead = support.weight[taken] - support.weight[true]
        push = (lead * (support.concepts[rows] - fill)).mean(0)
        for concept in push.argsort(descending=True, stable=True).tolist():
            logits = support.logits(repair)[rows]
            gone = (logits[:, taken] - logits[:, true]).mean() < 0
            if gone or push[concept] <= 0 or int(repair.masked.sum()) >= most:
                break
            tried = replace(repair, masked=repair.masked.index_fill(0, torch.tensor(concept), True))
            if support.right(tried).sum() >= support.right(repair).sum():
                repair = tried
    return repair.masked


def _weakened(support: Support, source: ClassStatistics, speakers: int, max_gain: float) -> Tensor:
    """How much each concept is amplified, (K,): the median over the classes it speaks for and is too weak on.

    Too weak is two standard errors below the training images, so that chance alone amplifies little.
    """
    weight, found = support.weight, torch.full_like(source.mean, torch.nan)
    for label in support.labels.unique().tolist():
        others = torch.cat([weight[:label], weight[label + 1 :]]).amax(0)
        speaks = weight[label] - others
        top = speaks.topk(min(speakers, len(speaks))).indices
        top = top[speaks[top] > 0]
        rows = support.concepts[support.labels == label][:, top]
        here, there = rows.mean(0), source.mean[label, top]
        weak = here < there - 2 * source.std[label, top] / len(rows) ** 0.5
        ratio = (there / here.clamp(min=1e-6)).clamp(1.0, max_gain)
        found[label, top[weak]] = ratio[weak]
    return found.nanmedian(0).values.nan_to_num(1.0)


def head_weights(model: ConceptModel, *, width: int) -> Tensor:
    """W (M, K) of a head that is linear in its `width` inputs, the concepts first.

    Raises:
        ValueError: the head is not linear, or it reads more than the concepts.
    """
    ones = torch.ones(2, width, device=model.concept_weights.device)
    once, twice = model.contributions(Output(ones, latent=ones * torch.tensor([[1.0], [2.0]]).to(ones)))
    if width != len(model.concept_names) or not torch.allclose(2 * once, twice, rtol=1e-4, atol=1e-6):
        raise ValueError(
            f"{type(model).__name__} has no linear head on its concepts alone: its concepts cannot be masked"
        )
    return once.mT


@torch.no_grad()
def read_support(model: ConceptModel, batches: Iterable[Batch]) -> Support:
    """Run a trained model over labelled images of the new domain."""
    outputs = [(model.eval().forward_batch(batch), batch["label"]) for batch in batches]
    if not outputs:
        raise ValueError("there is no image of the new domain: give a folder with a few of each class")
    concepts = torch.cat([output.latent for output, _ in outputs if output.latent is not None])
    weight = head_weights(model, width=concepts.shape[1])
    prediction, labels = torch.cat([output.prediction for output, _ in outputs]), torch.cat([y for _, y in outputs])
    return Support(concepts, labels, weight, prediction - concepts @ weight.mT)


def repaired_latent(output: Output, repair: Repair, intervene: Intervention | None = None) -> Tensor:
    """What the head sees with the repair; a person's corrections stand."""
    assert output.latent is not None
    latent = repair.apply(output.latent)
    return latent if intervene is None else torch.where(intervene.mask.to(latent.device), output.latent, latent)


def repaired(model: ConceptModel, output: Output, repair: Repair, intervene: Intervention | None = None) -> Output:
    """The output of any model with a linear head as it is with the repair."""
    latent = repaired_latent(output, repair, intervene)
    weight = head_weights(model, width=latent.shape[1])
    assert output.latent is not None
    return replace(output, prediction=output.prediction + (latent - output.latent) @ weight.mT, latent=latent)


class TFTTI(CBM):
    """A concept bottleneck that keeps what its training images look like, and can be repaired for a new domain.

    Args:
        domain: "source" answers as trained; "target" applies the repair that `adapt` has fitted.
        max_masked, max_gain, speakers, mask_value: see `fit_repair`.
        Others: see `CBM`.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str],
        concept_groups: Groups = (),
        training: Literal["joint", "sequential", "independent"] = "joint",
        bottleneck: Literal["sigmoid", "logit", "relu"] = "sigmoid",
        concept_loss_weight: float = 1.0,
        domain: Literal["source", "target"] = "source",
        max_masked: float = 0.1,
        max_gain: float = 3.0,
        speakers: int = 3,
        mask_value: Literal["zero", "source_mean"] = "zero",
    ):
        super().__init__(
            backbone=backbone,
            num_outputs=num_outputs,
            concept_names=concept_names,
            concept_groups=concept_groups,
            training=training,
            bottleneck=bottleneck,
            concept_loss_weight=concept_loss_weight,
        )
        self.domain, concepts = domain, len(self.concept_names)
        self.max_masked, self.max_gain, self.speakers, self.mask_value = max_masked, max_gain, speakers, mask_value
        self.register_buffer("source_mean", torch.zeros(num_outputs, concepts))
        self.register_buffer("source_std", torch.zeros(num_outputs, concepts))
        for name, value in vars(Repair.identity(torch.zeros(concepts))).items():
            self.register_buffer(f"repair_{name}", value)

    @property
    def repair(self) -> Repair:
        return Repair(*(self.get_buffer(f"repair_{name}") for name in ("masked", "gain", "fill")))

    @torch.no_grad()
    def finish_stage(self, stage: Stage, datamodule: Any) -> None:
        """Keep the mean and deviation of each concept on each class of the training images."""
        super().finish_stage(stage, datamodule)
        device = self.concept_weights.device
        self.eval()
        outputs = [
            (super(TFTTI, self).forward_batch({key: value.to(device) for key, value in batch.items()}), batch["label"])
            for batch in datamodule.train_dataloader()
        ]
        latent = torch.cat([output.latent for output, _ in outputs if output.latent is not None])
        labels = torch.cat([labels for _, labels in outputs]).to(device)
        found = class_statistics(latent, labels, num_classes=self.num_outputs)
        self.get_buffer("source_mean").copy_(found.mean)
        self.get_buffer("source_std").copy_(found.std)

    def adapt(self, batches: Iterable[Batch]) -> Repair:
        """Fit the repair to a few labelled images of the new domain and switch to it; nothing else changes."""
        self.domain = "source"
        source = ClassStatistics(self.get_buffer("source_mean"), self.get_buffer("source_std"))
        found = fit_repair(
            read_support(self, batches),
            source,
            max_masked=self.max_masked,
            max_gain=self.max_gain,
            speakers=self.speakers,
            mask_value=self.mask_value,
        )
        for name, value in vars(found).items():
            self.get_buffer(f"repair_{name}").copy_(value)
        self.domain = "target"
        return found

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        output = super().forward_features(features, intervene)
        if self.domain == "source":
            return output
        latent = repaired_latent(output, self.repair, intervene)
        return replace(output, prediction=self.head(latent), latent=latent)

    def fitted_arguments(self) -> dict[str, Any]:
        return {"domain": self.domain}
