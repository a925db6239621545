"""Heterogeneous bottleneck adapters (HeBA): Islam, 2026, arXiv 2603.16653.

Every chosen layer of both CLIP towers gets two adapters: one of width d on ln_1(x) before attention, one of width 4d on
c_fc(ln_2(x)) before the activation. An adapter A is LN(x + up(GELU(mid(down(x))))), a quarter as wide inside; in the
image tower `mid` is a depthwise 3x3 convolution over the grid of patches and the class token is left out, in the text
tower there is no `mid`. What goes on is x + s * A(x); A's parameters learn as if s were 1, the path into x is scaled.

The released code reads a second scale for new classes and never uses it; it is left out. Its prompts file has a syntax
error. With all layers of ViT-B/16 there are 87,158,016 weights to learn, more than the image tower has.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.backbone import Backbone
from zoo.models.concept.clip_tuning import TunedClip, tower_blocks
from zoo.models.contract import Batch, Intervention, Output, Stage


class Rescale(torch.autograd.Function):
    """x * forward_scale, whose gradient is that of x * backward_scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward_scale: float, backward_scale: float) -> Tensor:
        ctx.backward_scale = backward_scale
        return x * forward_scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.backward_scale, None, None


class HeBABlock(nn.Module):
    """A(x) = LN(x + up(GELU(mid(down(x))))) on tokens (B, N, D); a visual block takes a square number N of patches."""

    def __init__(self, *, width: int, reduction: int = 4, visual: bool):
        super().__init__()
        inner = width // reduction
        self.visual = visual
        if visual:
            self.down: nn.Module = nn.Conv2d(width, inner, 1, bias=False)
            self.mid: nn.Module = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
            self.up: nn.Module = nn.Conv2d(inner, width, 1, bias=False)
        else:
            self.down, self.up = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
            self.mid = nn.Identity()
        self.norm = nn.LayerNorm(width)
        assert isinstance(self.up.weight, Tensor)
        nn.init.kaiming_normal_(self.up.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        if not self.visual:
            return self.norm(x + self.up(F.gelu(self.down(x))))
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise ValueError(f"{x.shape[1]} patches are no square grid: give images as high as wide")
        grid = x.mT.unflatten(-1, (side, side))
        changed = self.up(F.gelu(self.mid(self.down(grid))))
        return self.norm(x + changed.flatten(2).mT)


class HeBAAdapter(nn.Module):
    """x + s * A(x) on tokens (B, N, D); in the image tower the first token, the class, passes by.

    `boost` multiplies s while training.
    """

    def __init__(self, *, width: int, reduction: int, visual: bool, scale: float):
        super().__init__()
        self.block = HeBABlock(width=width, reduction=reduction, visual=visual)
        self.scale, self.boost = scale, 1.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.block.visual:
            return x + self._scaled(x)
        return torch.cat([x[:, :1], x[:, 1:] + self._scaled(x[:, 1:])], dim=1)

    def _scaled(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.scale * self.block(x)
        scale = self.scale * self.boost
        return Rescale.apply(self.block(Rescale.apply(x, 1.0, scale)), scale, 1.0)

    def hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of a module whose output is (B, N, D)."""
        return self(output)

    def token_first_hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Forward hook of a module whose output is (N, B, D)."""
        return self(output.transpose(0, 1)).transpose(0, 1)


class HeBA(TunedClip):
    """CLIP with adapters in both towers, trained on a few images of each class.

    Args:
        backbone: a CLIP of open_clip with transformer towers.
        first_layer, last_layer: layers with adapters, counted from 1; null is the last there is.
        scale: s. boost, boost_share: in this share of training steps s is `boost` times as large.
        negatives: while training with more classes than images in a batch, only the batch's classes and this many
            times as many others, drawn anew, are compared.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        class_names: Sequence[str],
        template: str = "a photo of a {}",
        descriptions: Mapping[str, Sequence[str]] | None = None,
        first_layer: int = 1,
        last_layer: int | None = None,
        reduction: int = 4,
        scale: float = 0.025,
        boost: float = 2.25,
        boost_share: float = 0.2,
        negatives: int = 5,
        label_smoothing: float = 0.1,
    ):
        super().__init__(
            backbone=backbone,
            class_names=class_names,
            template=template,
            descriptions=descriptions,
            label_smoothing=label_smoothing,
            text_learns=True,
        )
        self.boost, self.boost_share, self.negatives = boost, boost_share, negatives
        self.adapters = nn.ModuleDict()
        for tower, blocks in tower_blocks(backbone).items():
            layers = nn.ModuleDict()
            for number in range(first_layer, min(last_layer or len(blocks), len(blocks)) + 1):
                layers[str(number)] = attach(
                    blocks[number - 1], reduction=reduction, visual=tower == "visual", scale=scale
                )
            self.adapters[tower] = layers
        if not any(len(layers) for layers in self.adapters.values()):  # type: ignore[arg-type]
            raise ValueError(f"first_layer={first_layer}, last_layer={last_layer} choose no layer: count from 1")

    def forward_batch(self, batch: Batch, intervene: Intervention | None = None) -> Output:
        """In training: one prompt for each class, drawn anew, and of many classes a part, `extras["classes"]`; the
        logits of the others are minus infinity."""
        if not self.training:
            return super().forward_batch(batch, intervene)
        self._draw_boost()
        features = self.with_features(batch)["features"]
        classes = self.draw_classes(batch["label"])
        chosen = torch.randint(self.tokens.shape[1], classes.shape, device=classes.device)
        logits = self.logits(features, self.encode(self.tokens[classes, chosen][:, None]))
        prediction = logits.new_full((len(logits), len(self.tokens)), -torch.inf)
        return Output(prediction.index_copy(1, classes, logits), latent=features, extras={"classes": classes})

    def _draw_boost(self) -> None:
        boost = self.boost if torch.rand(()) < self.boost_share else 1.0
        for module in self.adapters.modules():
            if isinstance(module, HeBAAdapter):
                module.boost = boost

    def draw_classes(self, labels: Tensor) -> Tensor:
        """Sorted classes to compare: all, or those of labels (B,) and min(negatives * their number, rest) others."""
        count = len(self.tokens)
        if count <= len(labels):
            return torch.arange(count, device=labels.device)
        present = torch.zeros(count, dtype=torch.bool, device=labels.device).index_fill(0, labels, True)
        others = (~present).nonzero()[:, 0]
        drawn = others[torch.randperm(len(others), device=labels.device)[: self.negatives * int(present.sum())]]
        return torch.cat([present.nonzero()[:, 0], drawn]).sort().values

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy with label smoothing over the classes that were compared."""
        classes = output.extras.get("classes")
        if classes is None:
            return super().loss(output, batch)
        compared = Output(output.prediction[:, classes])
        return super().loss(compared, {"label": torch.searchsorted(classes, batch["label"])})

    def stages(self) -> list[Stage]:
        return [Stage("adapters", trains=("adapters",))]

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys of Jahid12012021/VLM-HeBA: `adapter_learner.visual_adapter.1.att_conv.down.weight`, `clip.*`."""
        converted = {}
        for key, value in state.items():
            if key.startswith("adapter_learner."):
                _, tower, layer, place, rest = key.split(".", 4)
                ours = {"att_conv": "attention", "mlp_conv": "mlp"}[place]
                key = f"adapters.{tower.removesuffix('_adapter')}.{layer}.{ours}.block.{rest}"
            else:
                key = f"backbone.{key}"
            converted[key] = value
        return converted


def attach(block: Any, *, reduction: int, visual: bool, scale: float) -> nn.ModuleDict:
    """Two adapters on a residual block of open_clip: on its ln_1 and on its mlp.c_fc."""
    places = {"attention": block.ln_1, "mlp": block.mlp.c_fc}
    widths = {"attention": block.attn.embed_dim, "mlp": block.mlp.c_fc.out_features}
    adapters = nn.ModuleDict()
    for name, module in places.items():
        adapter = HeBAAdapter(width=widths[name], reduction=reduction, visual=visual, scale=scale)
        module.register_forward_hook(adapter.hook if block.attn.batch_first else adapter.token_first_hook)
        adapters[name] = adapter
    return adapters
