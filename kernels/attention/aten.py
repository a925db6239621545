"""The path without a kernel: PyTorch's scaled_dot_product_attention, which compilers and exporters see through."""

import torch.nn.functional as F
from torch import Tensor


def attention_aten(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None, visible: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """o (B, H, M, V); `causal` only for as many queries as keys and without bias and `visible` (alignment differs)."""
    mask = visible
    if bias is not None:
        mask = bias.to(q.dtype)
        if visible is not None:
            mask = mask.masked_fill(~visible, float("-inf"))
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)
