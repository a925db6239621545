"""Approximated prompt tuning (APT): Wu, Huang, Zhou, Dai, Shu, Jiang, Ji, 2023, arXiv 2306.15706, for CLIP.

Deep prompt tuning lets N tokens attend to L more. Here the prompts' influence is an independent term added to the
output h of each frozen attention layer, with z the layer's input:

    P' = P + P A^T B^T,  S = ReLU(z P'^T),  w = max over prompts of S (no gradient),  out = exp(s) (h + w * S P)

The paper writes softmax weights; the released code, followed here, has ReLU scores times their own maximum and no
1/sqrt(D), so that the term is quadratic in z, and even at the start out is not h. The CLIP experiment is not released:
where the module sits (after the output projection, z = ln_1(x)) follows the pre-norm form of the released ViLT code.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.backbone import Backbone
from zoo.models.concept.clip_tuning import TunedClip, tower_blocks
from zoo.models.contract import Stage


class ApproximatedPrompts(nn.Module):
    """out = exp(s) (h + w * S P); `prompts` P (L, D), `down` A and `up` B of rank r, `scale` s."""

    def __init__(self, *, width: int, prompts: int = 200, rank: int = 4, dropout: float = 0.0):
        super().__init__()
        self.prompts = nn.Parameter(0.02 * torch.randn(prompts, width))
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        self.scale = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.down.weight)
        nn.init.zeros_(self.up.weight)

    def forward(self, attended: Tensor, tokens: Tensor) -> Tensor:
        """attended h and tokens z, both (..., D)."""
        # not as calls of the layers: torch's counter of operations fails where a parameter is a module's input
        keys = self.prompts + F.linear(F.linear(self.prompts, self.down.weight), self.up.weight)
        scores = self.dropout(F.relu(tokens @ keys.mT))
        strongest = scores.amax(-1, keepdim=True).detach()
        return self.scale.exp() * (attended + strongest * (scores @ self.prompts))

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: tuple[Any, ...]) -> Any:
        """Forward hook of an nn.MultiheadAttention: its query is z, the first of its outputs h."""
        tokens = inputs[0] if inputs else named["query"]
        return (self(output[0], tokens), *output[1:])


def attach(attention: nn.MultiheadAttention, *, prompts: int, rank: int, dropout: float = 0.0) -> ApproximatedPrompts:
    """Prompts on the output of an attention layer."""
    module = ApproximatedPrompts(width=attention.embed_dim, prompts=prompts, rank=rank, dropout=dropout)
    attention.register_forward_hook(module.hook, with_kwargs=True)
    return module


class APT(TunedClip):
    """CLIP whose attention layers learn approximated prompts from a few images of each class.

    Args:
        backbone: a CLIP of open_clip with transformer towers.
        prompts: L. rank: r. dropout: of the scores.
        text: the layers of the text tower learn prompts too.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        class_names: Sequence[str],
        template: str = "a photo of a {}",
        descriptions: Mapping[str, Sequence[str]] | None = None,
        prompts: int = 200,
        rank: int = 4,
        dropout: float = 0.0,
        text: bool = False,
        label_smoothing: float = 0.0,
    ):
        super().__init__(
            backbone=backbone,
            class_names=class_names,
            template=template,
            descriptions=descriptions,
            label_smoothing=label_smoothing,
            text_learns=text,
        )
        self.prompts = nn.ModuleDict()
        for tower, blocks in tower_blocks(backbone).items():
            if tower == "visual" or text:
                layers = (attach(block.attn, prompts=prompts, rank=rank, dropout=dropout) for block in blocks)  # type: ignore[arg-type]
                self.prompts[tower] = nn.ModuleList(layers)

    def stages(self) -> list[Stage]:
        return [Stage("prompts", trains=("prompts",))]
