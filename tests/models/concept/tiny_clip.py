"""A CLIP of open_clip's own classes that is small enough for tests, with a tokenizer of whole words."""

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from zoo.models.backbone import Backbone

WORDS = ["a", "photo", "of", "red", "blue", "green", "circle", "square", "with", "edges"]
END = 39


class TinyClip(Backbone):
    def __init__(
        self,
        *,
        embed_dim: int = 16,
        image_size: int = 24,
        patch: int = 8,
        vision: tuple[int, int, int] = (64, 2, 1),
        text: tuple[int, int, int] = (32, 2, 4),
        context: int = 10,
        vocabulary: int = END + 1,
    ):
        super().__init__()
        width, layers, heads = vision
        eye = CLIPVisionCfg(
            layers=layers, width=width, head_width=width // heads, patch_size=patch, image_size=image_size
        )
        width, layers, heads = text
        words = CLIPTextCfg(context_length=context, vocab_size=vocabulary, width=width, heads=heads, layers=layers)
        self.clip = CLIP(embed_dim, eye, words, quick_gelu=True)
        self.feature_dim, self.context = embed_dim, context

    def forward(self, images: Tensor) -> Tensor:
        return self.clip.encode_image(images)

    def tokenize(self, texts) -> Tensor:
        rows = [[1 + WORDS.index(word) for word in text.replace(",", "").split()] + [END] for text in texts]
        return torch.tensor([row + [0] * (self.context - len(row)) for row in rows])
