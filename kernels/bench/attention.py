"""Attention beside SDPA's backends and FlexAttention, on the shapes of vision models.

Long sequences have 16k tokens and 2,048 channels, as in FlashAttention's own tables; windows are Swin's, with the bias
that it learns.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._functorch import config as functorch_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from zoo.kernels.attention import attention as ours
from zoo.kernels.bench.comparison import Call, Comparison

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}


def attention_vit(device: str, dtype: torch.dtype) -> Comparison:
    return _images(device, dtype, batch=64 if device == "cuda" else 4, heads=12, tokens=197)


def attention_vit_large(device: str, dtype: torch.dtype) -> Comparison:
    return _images(device, dtype, batch=32 if device == "cuda" else 1, heads=16, tokens=577)


def attention_long_64(device: str, dtype: torch.dtype) -> Comparison:
    return _long(device, dtype, channels=64)


def attention_long_128(device: str, dtype: torch.dtype) -> Comparison:
    return _long(device, dtype, channels=128)


def attention_long_causal(device: str, dtype: torch.dtype) -> Comparison:
    return _long(device, dtype, channels=64, causal=True)


def attention_backward_64(device: str, dtype: torch.dtype) -> Comparison:
    return _long(device, dtype, channels=64, backward=True)


def attention_backward_128(device: str, dtype: torch.dtype) -> Comparison:
    return _long(device, dtype, channels=128, backward=True)


def attention_windows_7(device: str, dtype: torch.dtype) -> Comparison:
    return _windows(device, dtype, side=7)


def attention_windows_8(device: str, dtype: torch.dtype) -> Comparison:
    return _windows(device, dtype, side=8)


def attention_decoding(device: str, dtype: torch.dtype) -> Comparison:
    """One query of each image, as attention pooling has; four query heads share the keys."""
    q, k, v = _one_query(device, dtype)
    calls = {"attention": lambda: ours(q, k, v)} | _others(q, k, v, enable_gqa=True)
    shapes = {"batch": len(q), "heads": 16, "kv_heads": 4, "q_len": 1, "kv_len": 4096, "head_dim": 64}
    return Comparison("attention", f"{len(q)} x 16 heads on 4, 1 query, 4096 keys", calls, q, shapes)


def attention_unified_maximum(device: str, dtype: torch.dtype) -> Comparison:
    """The same under a maximum that is known, beside our own running one."""
    q, k, v = _one_query(device, dtype)
    calls: dict[str, Call] = {
        "attention": lambda: ours(q, k, v, unified_max=3.0),
        "running maximum": lambda: ours(q, k, v),
        "sdpa": lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
    }
    return Comparison("attention", f"{len(q)} x 16 heads on 4, 1 query, 4096 keys, unified maximum", calls, q)


def _one_query(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    batch = 16 if device == "cuda" else 4
    q = torch.randn(batch, 16, 1, 64, device=device, dtype=dtype)
    k, v = (torch.randn(batch, 4, 4096, 64, device=device, dtype=dtype) for _ in range(2))
    return q, k, v


def _images(device: str, dtype: torch.dtype, *, batch: int, heads: int, tokens: int) -> Comparison:
    """Straight from a fused projection (B, N, 3, H, D)."""
    qkv = torch.randn(batch, tokens, 3, heads, 64, device=device, dtype=dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    calls = {"attention": lambda: ours(q, k, v)} | _others(q, k, v)
    shapes = {"batch": batch, "heads": heads, "kv_heads": heads, "q_len": tokens, "kv_len": tokens, "head_dim": 64}
    return Comparison("attention", f"{batch} x {heads} x {tokens} x 64, fused qkv", calls, qkv, shapes)


def _long(
    device: str, dtype: torch.dtype, *, channels: int, causal: bool = False, backward: bool = False
) -> Comparison:
    batch, heads, tokens = (4, 2048 // channels, 4096) if device == "cuda" else (1, 256 // channels, 1024)
    leaves = [
        torch.randn(batch, heads, tokens, channels, device=device, dtype=dtype, requires_grad=backward)
        for _ in range(3)
    ]
    q, k, v = leaves
    calls = {"attention": lambda: ours(q, k, v, causal=causal)} | _others(q, k, v, is_causal=causal)
    if backward:
        upstream = torch.randn_like(q).detach()
        calls = {name: _backward_of(call, leaves, upstream) for name, call in calls.items()}
    kind = ", causal" * causal + ", backward" * backward
    shapes = {
        "batch": batch,
        "heads": heads,
        "kv_heads": heads,
        "q_len": tokens,
        "kv_len": tokens,
        "head_dim": channels,
    }
    shapes |= {"causal": int(causal), "backward": int(backward)}
    return Comparison("attention", f"{batch} x {heads} x {tokens} x {channels}{kind}", calls, q, shapes)


def _windows(device: str, dtype: torch.dtype, *, side: int) -> Comparison:
    """Forward and every gradient, that of the bias (1, H, N, N) too."""
    windows, tokens = 4096 if device == "cuda" else 128, side * side
    shape = (windows, 3, tokens, 32)
    leaves = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    leaves.append(torch.randn(1, 3, tokens, tokens, device=device, dtype=dtype, requires_grad=True))
    upstream = torch.randn(shape, device=device, dtype=dtype)

    def trained(attend: Call) -> Call:
        return lambda: torch.autograd.grad(attend(), leaves, upstream)

    q, k, v, bias = leaves
    calls = {
        "attention": trained(lambda: ours(q, k, v, bias)),
        "sdpa, mask": trained(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=bias)),
        "softmax(q k + b) v": trained(lambda: _written_out(q, k, v, bias)),
    }
    if device == "cuda":
        written_out, flex = torch.compile(_written_out, dynamic=False), torch.compile(flex_attention, dynamic=False)

        def add_bias(score: Tensor, _: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
            return score + bias[0, head, row, column]

        calls["softmax(q k + b) v, compiled"] = trained(lambda: written_out(q, k, v, bias))
        calls["flex, bias"] = trained(lambda: flex(q, k, v, score_mod=add_bias))
    return Comparison("attention", f"{windows} windows of {side} x {side}, 3 x 32, bias, training", calls, q)


def _written_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.mT + bias).softmax(-1) @ v


def _others(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, enable_gqa: bool = False) -> dict[str, Call]:
    """SDPA as it chooses, and on a GPU each of its backends and FlexAttention."""
    settings: dict[str, Any] = {"is_causal": is_causal, "enable_gqa": enable_gqa}
    others: dict[str, Call] = {"sdpa": lambda: F.scaled_dot_product_attention(q, k, v, **settings)}
    if not q.is_cuda:
        return others
    for name, backend in BACKENDS.items():
        others[f"sdpa, {name}"] = partial(_by_backend, backend, q, k, v, settings)
    flex = torch.compile(flex_attention, dynamic=False)
    tiles = create_block_mask(_seen, None, None, q.shape[2], k.shape[2], q.device) if is_causal else None
    others["flex"] = lambda: flex(q, k, v, block_mask=tiles, enable_gqa=enable_gqa)
    return others


def _by_backend(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, settings: dict[str, Any]) -> Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, **settings)


def _seen(_: Tensor, __: Tensor, row: Tensor, column: Tensor) -> Tensor:
    return row >= column


def _backward_of(forward: Call, leaves: list[Tensor], upstream: Tensor) -> Call:
    """The backward alone: the forward runs once, at the first call."""
    kept: list[Tensor] = []

    def call() -> tuple[Tensor, ...]:
        if not kept:
            with functorch_config.patch(donated_buffer=False):  # a compiled backward may run again
                kept.append(forward())
        return torch.autograd.grad(kept[0], leaves, upstream, retain_graph=True)

    return call


COMPARISONS = (
    attention_vit, attention_vit_large, attention_long_64, attention_long_128, attention_long_causal,
    attention_backward_64, attention_backward_128, attention_decoding,
    attention_unified_maximum,
)  # fmt: skip
WINDOWS = (attention_windows_7, attention_windows_8)
