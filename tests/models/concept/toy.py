"""Small data and backbones for the concept models that are fitted: planted concepts, and words with vectors."""

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.contract import Facts
from zoo.models.backbone import Identity

CLASSES, CONCEPTS = ("cat", "dog", "owl"), ("fur", "wings", "long ears", "night", "beak")


class Words(Identity):
    """Features are the inputs themselves, and every word has a fixed vector in their space."""

    def encode_text(self, texts: list[str]) -> Tensor:
        seeds = [torch.Generator().manual_seed(sum(text.encode())) for text in texts]
        return 3 * torch.stack([torch.randn(self.feature_dim, generator=seed) for seed in seeds])


def planted(count: int = 240, width: int = 12, seed: int = 0, **changes):
    """A data module whose inputs are sums of the word vectors of their concepts; the class decides the concepts."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    of_class = torch.tensor([[1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 1]]).float()
    flips = (torch.rand(count, len(CONCEPTS), generator=generator) < 0.05).float()
    concepts = (of_class[labels] - flips).abs()
    directions = torch.nn.functional.normalize(Words(in_channels=width).encode_text(list(CONCEPTS)), dim=1)
    inputs = 2 * concepts @ directions + 0.3 * torch.randn(count, width, generator=generator)
    return module(inputs, labels, concepts, **changes)


def module(inputs: Tensor, labels: Tensor, concepts: Tensor | None, key: str = "image", classes=CLASSES):
    """What `prepare` needs of a data module."""
    items = [{key: x, "label": y, "index": torch.tensor(i)} for i, (x, y) in enumerate(zip(inputs, labels))]
    if concepts is not None:
        items = [item | {"concepts": c} for item, c in zip(items, concepts)]
    facts = Facts("classification", len(classes), tuple(classes), inputs.shape[1], (0, 0), CONCEPTS)

    def loader() -> DataLoader:
        return DataLoader(items, batch_size=50, shuffle=True)

    return SimpleNamespace(train_dataloader=loader, val_dataloader=loader, facts=facts, train_set=items)


def accuracy(model, data) -> float:
    items = data.train_set
    output = model.eval()(torch.stack([item["image"] for item in items]))
    return float((output.prediction.argmax(1) == torch.stack([item["label"] for item in items])).float().mean())
