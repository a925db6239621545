"""The repair of concepts on a new domain, fitted to a few labelled images: TF-TTI (He et al., arXiv 2506.18070).

`zoo.models.concept.tf_tti` says what is masked and amplified, and how much of it is a reconstruction.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

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
