"""Backbones: images (B, C, H, W) to features (B, D), through one small interface, and the zoo's own small ones.

Networks from timm are `zoo.models.timm_backbone.Timm`, those from open_clip `zoo.models.clip_backbone.Clip`.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """Base of all backbones: `feature_map` is its network, `forward` the pooled map.

    A frozen backbone stays in evaluation mode and its parameters do not learn, so that its features may be cached;
    gradients with respect to the images still flow (saliency needs them).

    Attributes:
        feature_dim: D, the width of `forward`. feature_channels: channels of `feature_map`.
        preprocessing: what the weights expect of an image, as `zoo.data.contract.Preprocessing.from_dict` takes it;
            None leaves it to the data.
        frozen: whether it learns; set by `freeze()`.
    """

    feature_dim: int
    feature_channels: int
    preprocessing: dict[str, Any] | None = None
    frozen: bool = False

    def forward(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> features (B, feature_dim)."""
        return self.feature_map(images).mean(dim=(2, 3))

    def feature_map(self, images: Tensor) -> Tensor:
        """images (B, C, H, W) -> (B, feature_channels, H', W')."""
        raise NotImplementedError(f"{type(self).__name__} defines no feature_map")

    def freeze(self) -> "Backbone":
        """Stop learning: evaluation mode from now on, no gradient for any parameter."""
        self.frozen = True
        self.requires_grad_(False)
        return self.train(False)

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(mode and not self.frozen)

    def weights_key(self) -> str:
        """A hash of the architecture and every weight: equal keys give equal features (in evaluation mode)."""
        digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(self)).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:32]


class FeatureMap(Backbone):
    """Another backbone without its pooling: images to features at every position, (B, feature_channels, H', W')."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone, self.preprocessing = backbone, backbone.preprocessing
        self.feature_dim = self.feature_channels = backbone.feature_channels
        if backbone.frozen:
            self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        return self.feature_map(images)

    def feature_map(self, images: Tensor) -> Tensor:
        return self.backbone.feature_map(images)


class Identity(Backbone):
    """The inputs themselves, flattened: for tables, whose rows are features already."""

    def __init__(self, *, in_channels: int, image_size: Sequence[int] = (0, 0)):
        super().__init__()
        self.feature_dim = self.feature_channels = flat_size(in_channels, image_size)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, feature_dim, 1, 1): a flat input has one position."""
        return self(images)[:, :, None, None]


class MLP(Backbone):
    """Fully connected layers, each followed by an activation, on flattened images or table rows.

    hidden: widths of the layers, the last of which is `feature_dim`. activation: a class of `torch.nn`, by name.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: Sequence[int] = (0, 0),
        hidden: Sequence[int] = (256, 256),
        activation: str = "ReLU",
        dropout: float = 0.0,
        frozen: bool = False,
    ):
        super().__init__()
        if not hidden:
            raise ValueError("hidden names no layer; give at least one width, or take backbone=identity")
        layers: list[nn.Module] = []
        width = flat_size(in_channels, image_size)
        for size in hidden:
            layers += [nn.Linear(width, size), activation_named(activation), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers)
        self.feature_dim = self.feature_channels = width
        if frozen:
            self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.flatten(1))

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, feature_dim, 1, 1): a fully connected network has one position."""
        return self(images)[:, :, None, None]


class ConvNet(Backbone):
    """Stages of two 3x3 convolutions with batch normalisation and ReLU, halving the map between stages.

    Meant for images of 8 to 64 pixels. widths: channels of each stage, the last of which is `feature_dim`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        widths: Sequence[int] = (32, 64, 128),
        dropout: float = 0.0,
        frozen: bool = False,
    ):
        super().__init__()
        if not widths:
            raise ValueError("widths names no stage; give at least one number of channels")
        if min(widths) < 1:
            raise ValueError(f"widths={list(widths)}: give at least 1 channel a stage")
        stages: list[nn.Module] = []
        width = in_channels
        for index, size in enumerate(widths):
            # rounding up keeps at least one position however small the image is
            halve = nn.MaxPool2d(2, ceil_mode=True) if index else nn.Identity()
            stages.append(nn.Sequential(halve, conv_norm_relu(width, size), conv_norm_relu(size, size)))
            width = size
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.feature_dim = self.feature_channels = width
        if frozen:
            self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(super().forward(images))

    def feature_map(self, images: Tensor) -> Tensor:
        if images.dim() != 4:
            shape = tuple(images.shape)
            raise ValueError(f"the convnet takes images (B, C, H, W), got {shape}: take backbone=mlp for tables")
        return self.stages(images)


def conv_norm_relu(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def flat_size(in_channels: int, image_size: Sequence[int]) -> int:
    """Numbers in one flattened input; an image size of (0, 0) means a table row of `in_channels` numbers."""
    return in_channels * math.prod(image_size) if any(image_size) else in_channels


def activation_named(name: str) -> nn.Module:
    """An activation of `torch.nn` by the name of its class, such as ReLU, LeakyReLU, GELU."""
    kind = getattr(nn, name, None)
    if kind is None or (kind is not nn.Identity and kind.__module__ != "torch.nn.modules.activation"):
        raise ValueError(f"unknown activation {name!r}: name a class of torch.nn such as ReLU, LeakyReLU, GELU")
    return kind()
