"""The zoo's attention in networks that were built elsewhere: the ViTs and Swins of timm, towers of open_clip.

    use_zoo_attention(timm.create_model("vit_base_patch16_224"))

Weights, state_dict keys and outputs stay as they are; the attention inside runs through `zoo.kernels.attention`, which
on a GPU reads q, k, v straight out of the packed projection and gives the relative position bias its gradient.
The zoo's own timm and CLIP networks are built with it.
"""

import math
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from timm.layers import Attention, AttentionRope
from timm.models import beit, eva, swin_transformer_v2, swin_transformer_v2_cr
from timm.models import vision_transformer_relpos as relpos
from timm.models import vision_transformer_sam as sam
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.kernels.attention import attention

Network = TypeVar("Network", bound=nn.Module)


def use_zoo_attention(model: Network) -> Network:
    """Let every known attention layer of `model` compute with `zoo.kernels.attention`; returns the model itself.

    Layers change their class and nothing else, so parameters and hooks stay. A layer that needs what the kernel does
    not offer (dropout on the attention weights, attention weights as an output) keeps computing as before.

    Raises ValueError where no layer is of a known kind.
    """
    if not _change(model):
        names = ", ".join(f"{kind.__module__}.{kind.__name__}" for kind in KNOWN)
        raise ValueError(f"{type(model).__name__} has no attention layer of a known kind ({names})")
    return model


def with_zoo_attention(model: Network) -> Network:
    """The same for networks of any kind: one without a known attention layer stays as it is."""
    _change(model)
    return model


def _change(model: nn.Module) -> int:
    """How many attention layers of a known kind compute with `zoo.kernels.attention` now."""
    for module in model.modules():
        module.__class__ = KNOWN.get(type(module), type(module))
    return sum(type(module) in KNOWN.values() for module in model.modules())


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
        bias = _with_mask(self._get_rel_pos_bias(), mask, len(x))
        o = attention(q, k, v, bias, scale=self.scale).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(o))


class CosineWindowAttention(swin_transformer_v2.WindowAttention):
    """Window attention of timm's Swins of the second version (arXiv 2111.09883).

    The score is the cosine of q and k times exp(min(logit_scale, ln 100)), plus 16 sigmoid(network of the offset).
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if _drops(self):
            return super().forward(x, mask)
        bias = None if self.q_bias is None else torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        q, k, v = _split(F.linear(x, self.qkv.weight, bias), self.num_heads)
        table = self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        offset = 16 * table[self.relative_position_index].permute(2, 0, 1).sigmoid()
        o = _cosine_attention(q, k, v, self.logit_scale, _with_mask(offset[None], mask, len(x)))
        return self.proj_drop(self.proj(o))


class CosineWindowAttentionCr(swin_transformer_v2_cr.WindowMultiHeadAttention):
    """The same in timm's other implementation, whose network of the offset has no sigmoid."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if _drops(self):
            return super().forward(x, mask)
        q, k, v = _split(self.qkv(x), self.num_heads)
        bias = _with_mask(self._relative_positional_encodings(), mask, len(x))
        o = _cosine_attention(q, k, v, self.logit_scale.view(-1, 1, 1), bias)
        return self.proj_drop(self.proj(o))


class _Routed(TorchFunctionMode):
    """While on, `F.scaled_dot_product_attention` is the zoo's attention where that computes the same."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attention(*args, **(kwargs or {}))

    @staticmethod
    def _attention(
        q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, **more: Any,
    ) -> Tensor:  # fmt: skip
        hides = attn_mask is not None and not attn_mask.is_floating_point()
        if dropout_p or hides or more or q.dim() not in (3, 4) or (is_causal and q.shape[-2] != k.shape[-2]):
            given = {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal, **more}
            return F.scaled_dot_product_attention(q, k, v, **given)
        if q.dim() == 4:
            return attention(q, k, v, attn_mask, is_causal)
        mask = None if attn_mask is None else attn_mask.unsqueeze(-3)
        return attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), mask, is_causal).squeeze(1)


def _routed(kind: type[nn.Module]) -> type[nn.Module]:
    """`kind`, a layer that calls PyTorch's fused attention, with the zoo's in its place; found by its name here, as
    pickle and copies between processes look for it."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _Routed():
            return kind.forward(self, *args, **kwargs)

    name = f"Zoo{kind.__name__}Of{kind.__module__.rpartition('.')[2].title().replace('_', '')}"
    globals()[name] = type(name, (kind,), {"forward": forward, "__doc__": f"{kind.__name__} with {__name__}"})
    return globals()[name]


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


def _drops(layer: Any) -> bool:
    return layer.training and layer.attn_drop.p > 0


def _with_mask(bias: Tensor, mask: Tensor | None, windows: int) -> Tensor:
    """bias (1, H, N, N) and mask (windows per image, N, N) of 0 and -inf or -100, or None -> one bias."""
    if mask is None:
        return bias
    return (bias + mask.unsqueeze(1)).repeat(windows // len(mask), 1, 1, 1)


def _cosine_attention(q: Tensor, k: Tensor, v: Tensor, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """o (B, N, C); logit_scale (H, 1, 1)."""
    q = F.normalize(q, dim=-1) * logit_scale.clamp(max=math.log(100)).exp()
    return attention(q, F.normalize(k, dim=-1), v, bias, scale=1.0).transpose(1, 2).flatten(2)


KNOWN: dict[type[nn.Module], type[nn.Module]] = {
    Attention: TimmAttention,
    WindowAttention: TimmWindowAttention,
    swin_transformer_v2.WindowAttention: CosineWindowAttention,
    swin_transformer_v2_cr.WindowMultiHeadAttention: CosineWindowAttentionCr,
    nn.MultiheadAttention: PackedAttention,
} | {
    kind: _routed(kind)
    for kind in (
        AttentionRope,
        beit.Attention,
        eva.EvaAttention,
        relpos.RelPosAttention,
        sam.Attention,
    )
}
"""What a layer of each kind becomes."""
