"""LITv2: a hierarchical vision transformer that spends no attention on its early, large maps.

Pan, Cai, Zhuang, "Fast Vision Transformers with HiLo Attention", NeurIPS 2022, arXiv 2205.13213.

    image --patches--> stage 1 -merge-> stage 2 -merge-> stage 3 -merge-> stage 4 --LayerNorm, mean--> features -->
    logits
    stages 1, 2:  x += MLP(LN x)
    stages 3, 4:  x += HiLo(LN x);  x += MLP(LN x)        the MLP holds a depthwise 3x3 convolution, so positions
                                                          need no embedding and any image size will do

Where the released code and this differ: any image size is taken; the offsets of the merging layers learn at the common
rate there is here, at a hundredth of it there.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from zoo.models.backbone import Backbone
from zoo.models.contract import Batch, Intervention, Output, ZooModel
from zoo.models.task_loss import task_loss
from zoo.models.vision.hilo import HiLo
from zoo.models.vision.token_merging import DeformableTokenMerging

VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 32, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "drop_path": 0.0},
    "small": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path": 0.2},
    "medium": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24), "drop_path": 0.3},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "drop_path": 0.5},
}
"""The paper's S, M and B; `tiny` is ours, for small images."""


class ConvMLP(nn.Module):
    """Linear, depthwise 3x3 convolution, GELU, Linear on (B, H, W, C)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.fc1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(F.gelu(x))


class Block(nn.Module):
    """Pre-norm residual block on (B, H, W, C); without `attn` it is its MLP alone."""

    def __init__(self, dim: int, *, attn: HiLo | None, mlp_ratio: float, drop_path: float):
        super().__init__()
        self.attn = attn
        if attn is not None:
            self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = ConvMLP(dim, int(dim * mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        if self.attn is not None:
            x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Module):
    """Blocks at one resolution, then (but for the last stage) the merging that halves it."""

    def __init__(self, blocks: list[Block], merge: DeformableTokenMerging | None):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.merge = merge

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return x if self.merge is None else self.merge(x)


class PatchEmbed(nn.Module):
    """Patches of an image (B, C, H, W) as vectors (B, H / p, W / p, E)."""

    def __init__(self, in_channels: int, dim: int, patch_size: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class LITv2Backbone(Backbone):
    """LITv2 without its classifier: features (B, 8 E) and the map (B, 8 E, H / 8p, W / 8p) that they are the mean of.

    Args:
        variant: "tiny", "small", "medium" or "base"; gives embed_dim, depths, num_heads and drop_path, where they are
        None.
        window_sizes: of HiLo in each stage; 0 for a stage without attention, 1 for plain attention.
        alpha: share of Lo heads.
        patch_size: 4 as published; None takes 4, or for small images the largest of 4, 2, 1 that leaves the last stage
            a position.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
        variant: str = "small",
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        drop_path: float | None = None,
        window_sizes: Sequence[int] = (0, 0, 2, 1),
        alpha: float = 0.9,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        patch_size: int | None = None,
        frozen: bool = False,
    ):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"litv2: unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}")
        given = {"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads, "drop_path": drop_path}
        shape = VARIANTS[variant] | {name: value for name, value in given.items() if value is not None}
        dim, depths, num_heads = shape["embed_dim"], shape["depths"], shape["num_heads"]
        if not len(depths) == len(num_heads) == len(window_sizes):
            raise ValueError("litv2: depths, num_heads and window_sizes must name equally many stages")
        self.patch_embed = PatchEmbed(in_channels, dim, _patch_size(patch_size, image_size, len(depths)))
        rates = torch.linspace(0, shape["drop_path"], sum(depths), device="cpu").tolist()
        stages = []
        for index, (depth, heads, window) in enumerate(zip(depths, num_heads, window_sizes)):
            blocks = [
                Block(
                    dim,
                    attn=HiLo(dim, num_heads=heads, window_size=window, alpha=alpha, qkv_bias=qkv_bias)
                    if window
                    else None,
                    mlp_ratio=mlp_ratio,
                    drop_path=rates.pop(0),
                )
                for _ in range(depth)
            ]
            last = index == len(depths) - 1
            stages.append(Stage(blocks, None if last else DeformableTokenMerging(dim)))
            dim = dim if last else 2 * dim
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(dim)
        self.feature_dim = self.feature_channels = dim
        self.apply(_initialise)
        if frozen:
            self.freeze()

    def feature_map(self, images: Tensor) -> Tensor:
        return self.norm(self.stages(self.patch_embed(images))).permute(0, 3, 1, 2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _patch_size(given: int | None, image_size: Sequence[int], stages: int) -> int:
    """The patch size, checked against the image: the last stage needs a position."""
    shrink = 2 ** (stages - 1)
    fitting = [size for size in ([given] if given else [4, 2, 1]) if min(image_size) // size >= shrink]
    if not fitting:
        least = (given or 1) * shrink
        raise ValueError(
            f"litv2: images of {image_size[0]}x{image_size[1]} are too small: take {least}x{least} or more"
        )
    return fitting[0]


class LITv2(ZooModel):
    """LITv2 as a classifier (or regressor); the arguments are those of `LITv2Backbone`.

    Shapes: images (B, in_channels, H, W), features and latent (B, 8 E), prediction (B, num_outputs).
    """

    def __init__(
        self,
        *,
        num_outputs: int,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
        task: Literal["classification", "regression"] = "classification",
        variant: str = "small",
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        drop_path: float | None = None,
        window_sizes: Sequence[int] = (0, 0, 2, 1),
        alpha: float = 0.9,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        patch_size: int | None = None,
    ):
        super().__init__()
        self.task = task
        trunk = LITv2Backbone(
            in_channels=in_channels,
            image_size=image_size,
            variant=variant,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            drop_path=drop_path,
            window_sizes=window_sizes,
            alpha=alpha,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            patch_size=patch_size,
        )
        self.backbone = trunk
        self.head = nn.Linear(trunk.feature_dim, num_outputs)
        _initialise(self.head)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        return Output(self.head(features), latent=features)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, or mean squared error in regression."""
        return {"loss": task_loss(output.prediction, batch["label"], task=self.task)}

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys of the authors' checkpoints (`layers.2.blocks.0.attn.h_qkv.weight`, `layers.0.downsample.dconv...`)."""
        return {_rename(key): value for key, value in state.items()}


_RENAMES = {
    "layers.": "stages.",
    "downsample.": "merge.",
    "dwconv.dwconv.": "depthwise.",
    "dconv.conv_offset.": "offset.",
    "dconv.": "",
    "norm_layer.": "norm.",
}


def _rename(key: str) -> str:
    for theirs, ours in _RENAMES.items():
        key = key.replace(theirs, ours)
    return key if key.startswith("head.") else f"backbone.{key}"
