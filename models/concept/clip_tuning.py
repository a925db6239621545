"""What methods that tune a frozen CLIP from a few images share: prompts, class features, cosine logits.

    logits = exp(logit_scale) * cos(image feature, class feature)
    class feature = mean over the class's prompts of normalised text features, normalised again

What a method adds sits inside the towers as hooks, so `backbone(images)` is the tuned feature and must not be cached.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.backbone import Backbone
from zoo.models.contract import Batch, Intervention, Output, ZooModel


def class_prompts(
    class_names: Sequence[str], template: str, descriptions: Mapping[str, Sequence[str]] | None
) -> list[list[str]]:
    """The prompts of each class, equally many: `template`, and each description after a comma.

    >>> class_prompts(["cat", "owl"], "a photo of a {}", {"cat": ["fur", "tail"]})
    [['a photo of a cat, fur', 'a photo of a cat, tail'], ['a photo of a owl', 'a photo of a owl']]
    """
    stated = descriptions or {}
    unknown = sorted(stated.keys() - set(class_names))
    if unknown:
        raise ValueError(f"descriptions of {unknown[0]!r}, which is no class: the classes are {', '.join(class_names)}")
    each = []
    for name in class_names:
        prompt = template.format(name)
        each.append([f"{prompt}, {text}" for text in stated.get(name, ())] or [prompt])
    longest = max(len(prompts) for prompts in each)
    return [prompts + prompts[:1] * (longest - len(prompts)) for prompts in each]


class TunedClip(ZooModel):
    """A frozen CLIP whose towers learn through what a subclass attaches to them.

    Args:
        backbone: a CLIP with `clip`, the model of open_clip, and `tokenize`.
        class_names: as they stand in the prompts.
        template: with one pair of braces for the class.
        descriptions: class name -> further texts.
        text_learns: the text tower is tuned too, so that class features change while training.
    """

    tokens: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        class_names: Sequence[str],
        template: str,
        descriptions: Mapping[str, Sequence[str]] | None,
        label_smoothing: float,
        text_learns: bool,
    ):
        super().__init__()
        if not hasattr(backbone, "clip"):
            raise ValueError("this model tunes the towers of a CLIP: choose one (backbone=clip)")
        if "{}" not in template:
            raise ValueError(f"template={template!r} has no place for the class: write {{}} there")
        self.backbone = backbone
        backbone.requires_grad_(False)
        backbone.frozen = False
        self.label_smoothing, self.text_learns = label_smoothing, text_learns
        prompts = class_prompts(class_names, template, descriptions)
        towers: Any = backbone
        flat = towers.tokenize([prompt for each in prompts for prompt in each])
        self.register_buffer("tokens", flat.unflatten(0, (len(prompts), -1)))
        self._class_features: Tensor | None = None
        self.register_load_state_dict_post_hook(lambda module, _: module.forget())

    def forget(self) -> None:
        """Drop the class features that evaluation keeps."""
        self._class_features = None

    def train(self, mode: bool = True) -> "TunedClip":
        if mode != self.training:
            self.forget()
        return super().train(mode)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        self.forget()
        return super()._apply(fn, recurse)

    def class_features(self) -> Tensor:
        """Normalised features of the classes over all their prompts, (M, D); kept while the text tower rests."""
        if self.training and self.text_learns:
            return self.encode(self.tokens)
        if self._class_features is None:
            with torch.inference_mode(False), torch.no_grad():
                self._class_features = torch.cat([self.encode(part) for part in self.tokens.split(64)])
        return self._class_features

    def encode(self, tokens: Tensor) -> Tensor:
        """tokens (M, P, length) -> class features (M, D)."""
        clip: Any = self.backbone.clip
        each = F.normalize(clip.encode_text(tokens.flatten(0, 1)), dim=-1).unflatten(0, tokens.shape[:2])
        return F.normalize(each.mean(1), dim=-1)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, D) of the tuned image tower, not normalised."""
        return Output(self.logits(features, self.class_features()), latent=features)

    def logits(self, features: Tensor, class_features: Tensor) -> Tensor:
        clip: Any = self.backbone.clip
        return clip.logit_scale.exp() * F.normalize(features, dim=-1) @ class_features.mT

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy with label smoothing."""
        loss = F.cross_entropy(output.prediction, batch["label"], label_smoothing=self.label_smoothing)
        return {"cross_entropy": loss, "loss": loss}


def tower_blocks(backbone: Backbone) -> dict[str, Sequence[nn.Module]]:
    """The residual blocks of the image tower ("visual") and of the text tower ("text").

    Raises:
        ValueError: the image tower is no transformer of open_clip.
    """
    clip = backbone.clip
    visual, text = getattr(clip, "visual", None), getattr(clip, "text", clip)
    found = {"visual": getattr(visual, "transformer", None), "text": getattr(text, "transformer", None)}
    for tower, transformer in found.items():
        if not hasattr(transformer, "resblocks"):
            raise ValueError(f"the {tower} tower of this CLIP has no transformer blocks of open_clip: take a ViT")
    return {tower: list(transformer.resblocks) for tower, transformer in found.items()}  # type: ignore[union-attr]
