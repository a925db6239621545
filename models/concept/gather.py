"""What a closed fit reads: a split as features, labels and concepts, and texts as vectors of the same space."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
    parameter = next(backbone.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    training = backbone.training
    backbone.eval()
    try:
        parts = [_part(backbone, batch, device) for batch in loader]
    finally:
        backbone.train(training)
    if not parts:
        raise ValueError("the training split is empty: this model is fitted from it")
    merged = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    if merged["label"].ndim != 1 or merged["label"].is_floating_point():
        raise ValueError("this model is fitted from class labels: take data with task=classification")
    if "index" in merged:
        order = merged["index"].argsort()
        merged = {key: value[order] for key, value in merged.items()}
    return Gathered(merged["features"].float(), merged["label"], merged.get("concepts"))


def _part(backbone: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
    features = batch["features"].to(device) if "features" in batch else backbone(batch["image"].to(device))
    kept = {key: value.to(device) for key, value in batch.items() if key in ("label", "index", "concepts")}
    return {"features": features, **kept}


def check_text_tower(backbone: Any, texts: Sequence[str] = ()) -> None:
    """Refuse a backbone that cannot read words, or not these, before anything slow starts.

    Raises:
        ValueError: it has no `encode_text`, or does not know a word.
    """
    if not hasattr(backbone, "encode_text"):
        raise ValueError(
            f"concepts given as words need a backbone with a text tower, and {type(backbone).__name__} has none: "
            "take a CLIP backbone (backbone=shapes_clip, word_clip or clip)"
        )
    if texts and hasattr(backbone, "tokenize"):
        backbone.tokenize(list(texts))


@torch.no_grad()
def encode_texts(backbone: Any, texts: Sequence[str], *, normalise: bool) -> Tensor:
    """Texts to vectors (K, D), of length 1 where `normalise`."""
    check_text_tower(backbone)
    training = backbone.training
    backbone.eval()
    vectors = backbone.encode_text(list(texts)).float()
    backbone.train(training)
    return nn.functional.normalize(vectors, dim=1) if normalise else vectors
