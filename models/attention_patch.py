"""The zoo's attention in networks that were built elsewhere: ViTs and Swins of timm, towers of open_clip.

    use_zoo_attention(timm.create_model("vit_base_patch16_224"))

Weights, state_dict keys and outputs stay as they are; the attention inside runs through `zoo.kernels.attention`, which
on a GPU reads q, k, v straight out of the packed projection and gives the relative position bias its gradient.
"""

from typing import Any, TypeVar

import torch.nn.functional as F
from timm.layers import Attention
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from zoo.kernels.attention import attention

Network = TypeVar("Network", bound=nn.Module)


def use_zoo_attention(model: Network) -> Network:
    """Let every known attention layer of `model` compute with `zoo.kernels.attention`; returns the model itself.

    Layers change their class and nothing else, so parameters and hooks stay. A layer that needs what the kernel does
    not offer (dropout on the attention weights, attention weights as an output) keeps computing as before.

    Raises ValueError where no layer is of a known kind.
    """
    known = {Attention: TimmAttention, WindowAttention: TimmWindowAttention, nn.MultiheadAttention: PackedAttention}
    changed = 0
    for module in model.modules():
        if type(module) in known:
            module.__class__ = known[type(module)]
        changed += type(module) in known.values()
    if not changed:
        names = ", ".join(f"{kind.__module__}.{kind.__name__}" for kind in known)
        raise ValueError(f"{type(model).__name__} has no attention layer of a known kind ({names})")
    return model


class TimmAttention(Attention):
    """Self attention of timm's ViTs; x (B, N, C)."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if _drops(self) or (attn_mask is not None and not attn_mask.is_floating_point()):
            return super().forward(x, attn_mask, is_causal)
        q, k, v = _split(self.qkv(x), self.num_heads)
        o = attention(self.q_norm(q), self.k_norm(k), v, attn_mask, is_causal)
        o = self.norm(o.transpose(1, 2).flatten(2))
        if self.gate is not None:
            o = o * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(o))


class TimmWindowAttention(WindowAttention):
    """Window attention of timm's Swins; x (windows, N, C), mask (windows per image, N, N) of 0 and -inf."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if _drops(self):
            return super().forward(x, mask)
        q, k, v = _split(self.qkv(x), self.num_heads)
        bias = self._get_rel_pos_bias()
        if mask is not None:
            images = len(x) // len(mask)
            bias = (bias + mask.unsqueeze(1)).repeat(images, 1, 1, 1)
        o = attention(q, k, v, bias, scale=self.scale).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(o))


class PackedAttention(nn.MultiheadAttention):
    """Self attention of open_clip's towers, which is PyTorch's own layer called without attention weights."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get("attn_mask")
        plain = query is key is value and self.batch_first and self._qkv_same_embed_dim and not args
        plain = plain and kwargs.keys() <= {"attn_mask", "need_weights"} and kwargs.get("need_weights") is False
        plain = plain and (mask is None or (mask.is_floating_point() and mask.dim() == 2))
        if not plain or (self.training and self.dropout) or self.bias_k is not None or self.add_zero_attn:
            return super().forward(query, key, value, *args, **kwargs)
        q, k, v = _split(F.linear(query, self.in_proj_weight, self.in_proj_bias), self.num_heads)
        return self.out_proj(attention(q, k, v, mask).transpose(1, 2).flatten(2)), None


def _split(packed: Tensor, heads: int) -> tuple[Tensor, ...]:
    """(B, N, 3 C) -> q, k, v, each a view (B, H, N, D)."""
    return packed.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _drops(layer: Attention | WindowAttention) -> bool:
    return layer.training and layer.attn_drop.p > 0
