"""Learning classes group after group, without replay or task id, and how much of the old ones is forgotten.

Protocol of the discrete key-value bottleneck (Trauble et al., ICML 2023, arXiv 2207.11240): groups of classes are
learned alone and in turn; after each, accuracy is measured on ALL classes. `LinearHead` is the usual baseline.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.contract import Batch, Intervention, Output, ZooModel
from zoo.tasks.supervised import select_stage

CLIP_NORM = 1.0
"""Limit of the gradient's norm over all that learns."""


@dataclass(frozen=True)
class Incremental:
    """`accuracy` (G, M): of each class after each of G groups. `groups`: the classes of each group."""

    accuracy: Tensor
    groups: tuple[tuple[int, ...], ...]

    @property
    def final(self) -> float:
        """Mean accuracy over classes after the last group."""
        return float(self.accuracy[-1].mean())

    @property
    def forgetting(self) -> float:
        """Mean over all classes but the last group's of (accuracy right after learning - accuracy at the end)."""
        drops = [
            float(self.accuracy[g, place] - self.accuracy[-1, place])
            for g, group in enumerate(self.groups[:-1])
            for place in group
        ]
        return sum(drops) / max(len(drops), 1)


class LinearHead(ZooModel):
    """The baseline: one linear layer on the features."""

    def __init__(self, *, feature_dim: int, num_outputs: int, label_smoothing: float = 0.1):
        super().__init__()
        self.head = nn.Linear(feature_dim, num_outputs)
        self.label_smoothing = label_smoothing

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        return Output(self.head(features), latent=features)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(output.prediction, batch["label"], label_smoothing=self.label_smoothing)}


def class_groups(num_classes: int, *, size: int = 2, seed: int | None = None) -> list[list[int]]:
    """Consecutive groups of classes, or of a seeded shuffle of them; the last may be smaller."""
    generator = torch.Generator().manual_seed(seed or 0)
    order = list(range(num_classes)) if seed is None else torch.randperm(num_classes, generator=generator).tolist()
    return [order[first : first + size] for first in range(0, num_classes, size)]


def class_incremental(
    model: ZooModel,
    train: Batch,
    test: Batch,
    *,
    groups: Sequence[Sequence[int]],
    epochs: int = 100,
    lr: float = 0.3,
    batch_size: int = 256,
    seed: int = 0,
) -> Incremental:
    """Train `model` on each group of classes alone, in turn, by plain SGD (one group of all classes is the iid mode).

    Args:
        model: prepared (keys fitted); what its first stage says learns.
        train, test: `features` (N, D) and `label` (N,).

    Raises:
        ValueError: a class has no training or test image, or stands in two groups.
    """
    classes = [label for group in groups for label in group]
    if len(set(classes)) != len(classes):
        raise ValueError(f"a class stands in two groups: {[list(group) for group in groups]}")
    for name, batch in (("training", train), ("test", test)):
        absent = sorted(set(classes) - set(batch["label"].tolist()))
        if absent:
            raise ValueError(f"the {name} data hold no image of class {absent[0]}: leave it out of the groups")
    generator = torch.Generator().manual_seed(seed)
    accuracy = []
    for group in groups:
        rows = torch.isin(train["label"], torch.tensor(group)).nonzero()[:, 0]
        _fit(model, {k: v[rows] for k, v in train.items()}, epochs, lr, batch_size, generator)
        accuracy.append(_accuracy(model, test, classes))
    position = {label: place for place, label in enumerate(classes)}
    return Incremental(torch.stack(accuracy), tuple(tuple(position[label] for label in group) for group in groups))


def _fit(model: ZooModel, data: Batch, epochs: int, lr: float, batch_size: int, generator: torch.Generator) -> None:
    stage = model.stages()[0]
    select_stage(model, stage)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(data["label"]), generator=generator).split(batch_size):
            batch = {key: value[rows] for key, value in data.items()}
            optimizer.zero_grad()
            getattr(model, stage.loss)(model.forward_features(batch["features"]), batch)["loss"].backward()
            nn.utils.clip_grad_norm_(learning, CLIP_NORM)
            optimizer.step()


@torch.no_grad()
def _accuracy(model: ZooModel, data: Batch, classes: Sequence[int]) -> Tensor:
    model.eval()
    right = (model.forward_features(data["features"]).prediction.argmax(1) == data["label"]).double()
    return torch.stack([right[data["label"] == label].mean() for label in classes])
