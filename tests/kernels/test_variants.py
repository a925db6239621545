"""How often Triton compiles a kernel anew, without a GPU: once for each set of types and of what it makes constant.

Triton makes sizes of 1 constant and knows multiples of 16. Sizes that change from batch to batch are kept from that, or
training on images or sentences of many lengths would wait for the compiler again and again.
"""

from collections import defaultdict
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

from zoo.kernels.attention import attention, attention_varlen
from zoo.kernels.linear import linear_attention, taylor_attention
from zoo.kernels.measured import kernels_always

LENGTHS = (65, 80, 100, 128, 257, 304, 500, 1000, 1024)
"""Odd and even, multiples of 16 and of tiles, of one tile and of many."""


@pytest.fixture
def variants(monkeypatch) -> dict[str, set[str]]:
    """What is compiled, by kernel; nothing is launched."""
    seen: dict[str, set[str]] = defaultdict(set)
    backend = make_backend(GPUTarget("cuda", 90, 32))

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        binder = create_function_from_signature(kernel.signature, kernel.params, backend)
        _, specialization, options = binder(*args, **named)
        seen[kernel.fn.__name__].add(str((specialization, options)))

    monkeypatch.setattr(triton.JITFunction, "run", run)
    monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: nullcontext())
    for module in ("attention", "attention.op", "linear.op"):
        monkeypatch.setattr(f"zoo.kernels.{module}.runs_triton", lambda *_, **__: True)
    return seen


def made(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bfloat16, requires_grad=True)


def test_attention_of_many_lengths(variants):
    """Three forms: the length is a multiple of 16, of 4, or of neither, and so are the strides of lse."""
    with kernels_always():
        for length in LENGTHS:
            q, k, v = (made(64, 4, length, 16) for _ in "qkv")
            attention(q, k, v, causal=True).sum().backward()
    assert {name: len(found) for name, found in variants.items() if len(found) > 3} == {}
    assert len(variants) == 4


def test_packed_sequences_of_many_lengths(variants):
    for length in LENGTHS:
        q, k, v = (made(length, 4, 16) for _ in "qkv")
        bounds = torch.tensor([0, length // 3, length], dtype=torch.int32)
        attention_varlen(q, k, v, bounds, bounds, max_seqlen_q=length).sum().backward()
    assert {name: len(found) for name, found in variants.items() if len(found) > 3} == {}
    assert len(variants) == 4


@pytest.mark.parametrize("function", [linear_attention, taylor_attention])
def test_linear_attention_of_many_lengths(variants, function):
    """A kernel has two forms: near or far keys, and a state of keys or of queries."""
    for length in LENGTHS:
        function(*(made(64, 4, length, 16) for _ in "qkv")).sum().backward()
    assert {name: len(found) for name, found in variants.items() if len(found) > 2} == {}
    assert len(variants) >= 4
