"""Words as vectors of the images' space: what concept models ask of a backbone that reads."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


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
