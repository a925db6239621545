"""Attentions whose cost grows linearly, beside the lines of PyTorch that say the same."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from zoo.kernels.bench.comparison import Call, Comparison
from zoo.kernels.linear import linear_attention as linear
from zoo.kernels.linear import taylor_attention as taylor

Function = Callable[..., Tensor]


def linear_attention(device: str, dtype: torch.dtype) -> Comparison:
    q, k, v = _input(device, dtype, (64 if device == "cuda" else 4, 12, 784), 64)
    calls = _with_compiled({"linear_attention": linear, "q (k v) / q sum k": _plain_linear}, [q, k, v])
    shapes = {"heads": len(q) * 12, "tokens": 784, "channels": 64, "values": 64}
    return Comparison("linear_attention", f"{len(q)} x 12 x 784 x 64", calls, q, shapes)


def linear_attention_training(device: str, dtype: torch.dtype) -> Comparison:
    leaves = _input(device, dtype, (64 if device == "cuda" else 4, 12, 784), 64, learns=True)
    calls = _with_compiled({"linear_attention": linear, "q (k v) / q sum k": _plain_linear}, leaves)
    return Comparison("linear_attention", f"{len(leaves[0])} x 12 x 784 x 64, training", calls, leaves[0])


def taylor_attention(device: str, dtype: torch.dtype) -> Comparison:
    heads, tokens = (96, 4096) if device == "cuda" else (4, 2048)
    leaves = _input(device, dtype, (1, heads, tokens), 16)
    calls = _with_compiled({"taylor_attention": _causal_taylor, "(1 + s + s^2/2).tril": _plain_taylor}, leaves)
    shapes = {"heads": heads, "tokens": tokens, "channels": 16, "values": 64, "causal": 1}
    return Comparison("taylor_attention", f"{heads} x {tokens}, causal", calls, leaves[0], shapes)


def taylor_attention_training(device: str, dtype: torch.dtype) -> Comparison:
    heads, tokens = (96, 4096) if device == "cuda" else (4, 2048)
    leaves = _input(device, dtype, (1, heads, tokens), 16, learns=True)
    calls = _with_compiled({"taylor_attention": _causal_taylor, "(1 + s + s^2/2).tril": _plain_taylor}, leaves)
    return Comparison("taylor_attention", f"{heads} x {tokens}, causal, training", calls, leaves[0])


def _with_compiled(functions: dict[str, Function], leaves: list[Tensor]) -> dict[str, Call]:
    """Calls on `leaves`, with their gradients where they learn; on a GPU the plain one compiled too."""
    if leaves[0].is_cuda:
        functions = {**functions, "the same, compiled": torch.compile(list(functions.values())[-1], dynamic=False)}
    run = _train if leaves[0].requires_grad else _apply
    return {name: partial(run, function, leaves) for name, function in functions.items()}


def _apply(function: Function, leaves: list[Tensor]) -> Tensor:
    return function(*leaves)


def _train(function: Function, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(function(*leaves).sum(), leaves)


def _input(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int], channels: int, *, learns: bool = False
) -> list[Tensor]:
    """q, k, v that are not negative, with 64 values."""
    sizes = ((*shape, channels), (*shape, channels), (*shape, 64))
    return [torch.randn(size, device=device, dtype=dtype).abs().requires_grad_(learns) for size in sizes]


def _plain_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q @ (k.mT @ v) / (q @ k.sum(-2, keepdim=True).mT + 1e-6)


def _causal_taylor(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return taylor(q, k, v, True)


def _plain_taylor(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s = q @ k.mT * 0.25
    weights = (1 + s + s * s / 2).tril()
    return weights @ v / weights.sum(-1, keepdim=True)


COMPARISONS = (linear_attention, linear_attention_training, taylor_attention, taylor_attention_training)
