"""What a model that is fitted in closed form reads: a whole split as features, labels and concepts."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.models.contract import Batch


@dataclass(frozen=True)
class Gathered:
    """A whole split: features (N, D), class labels (N,), and where the data have them concepts (N, K) in [0, 1]."""

    features: Tensor
    labels: Tensor
    concepts: Tensor | None


@torch.no_grad()
def gather(backbone: nn.Module, loader: Iterable[Batch]) -> Gathered:
    """Run a loader once, images through the backbone in evaluation mode, cached features as they are.

    The rows stand in the order of `index`, so that a fit does not depend on the loader's shuffling.

    Raises:
        ValueError: the labels are no class indices, or there is no batch.
    """
    with _evaluating(backbone) as device:
        parts = [_part(backbone, batch, device) for batch in loader]
    if not parts:
        raise ValueError("the training split is empty: this model is fitted from it")
    merged = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    if merged["label"].ndim != 1 or merged["label"].is_floating_point():
        raise ValueError("this model is fitted from class labels: take data with task=classification")
    if "index" in merged:
        order = merged["index"].argsort()
        merged = {key: value[order] for key, value in merged.items()}
    return Gathered(merged["features"].float(), merged["label"], merged.get("concepts"))


@torch.no_grad()
def embed(backbone: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Features (N, D) of batches of images."""
    with _evaluating(backbone) as device:
        return torch.cat([backbone(images.to(device)) for images in batches]).float()


@contextmanager
def _evaluating(backbone: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode, and the device where the backbone is."""
    parameter = next(backbone.parameters(), None)
    training = backbone.training
    backbone.eval()
    try:
        yield parameter.device if parameter is not None else torch.device("cpu")
    finally:
        backbone.train(training)


def _part(backbone: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
    features = batch["features"].to(device) if "features" in batch else backbone(batch["image"].to(device))
    kept = {key: value.to(device) for key, value in batch.items() if key in ("label", "index", "concepts")}
    return {"features": features, **kept}
