"""What the public operations launch, recorded without a GPU, is in the catalogue of the machine that they believe in.

A launch is recorded instead of run, so results are whatever lay in memory; only tiles, constants and types are looked
at. Operations are called on small tensors in every dtype, forward and backward.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import triton
from torch import Tensor

from zoo.kernels import kmeans
from zoo.kernels.aot import Configuration
from zoo.kernels.attention import attention, attention_varlen
from zoo.kernels.catalogue import TARGETS, catalogue, operations
from zoo.kernels.dispatch import KERNEL_DTYPES
from zoo.kernels.fftconv import fftconv
from zoo.kernels.linear import launch, linear_attention, simplified_linear_attention, taylor_attention
from zoo.kernels.max_similarity import max_similarity
from zoo.kernels.monarch import monarch
from zoo.kernels.preprocess import preprocess
from zoo.kernels.quant_linear import quant_linear, quantize_weight
from zoo.kernels.rational import rational
from zoo.kernels.retrieval_head import arrange, retrieve

WORDS = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "bf16", torch.uint8: "u8", torch.int8: "i8",
    torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip
"""Triton's words; the catalogue's "bf16" stands for float16."""

MOST_PROGRAMS = 65_535
"""Along a grid's second and third axis; the first takes 2^31 - 1."""

INDICES = ("ids", "at")
"""Results that later steps use as indices: 0 instead of what lay in memory."""


@pytest.fixture
def tf32() -> Iterator[None]:
    """Leaves PyTorch's setting for float32 products as it was."""
    before = torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def record(monkeypatch) -> Callable[[str], list[Configuration]]:
    """Every operation believes in a GPU of the named kind, whose launches go into the list."""
    seen: list[Configuration] = []
    current: list[Tensor] = []

    @contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        current.append(tensor)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        assert current, f"{kernel.fn.__name__} runs on whatever GPU is the current one: its launcher is not on_its_gpu"
        assert max(grid[1:], default=1) <= MOST_PROGRAMS, f"{kernel.fn.__name__}: a grid of {grid} cannot be launched"
        fused = named.pop("enable_fp_fusion", None)
        assert fused, f"{kernel.fn.__name__} leaves to Triton's version whether products and sums are fused"
        options = {key: named.pop(key) for key in ("num_warps", "num_stages") if key in named}
        given = dict(zip(kernel.arg_names, args, strict=False)) | named
        fixed = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
        constants = {key: value for key, value in given.items() if key in fixed or value is None or is_one(value)}
        types = {key: word(value) for key, value in given.items() if key not in constants}
        assert set(given) == set(kernel.arg_names)
        seen.append(Configuration(kernel.fn.__name__, kernel, types, constants, options=options))
        for key in INDICES:
            if isinstance(given.get(key), Tensor):
                given[key].zero_()

    def believe(target: str) -> list[Configuration]:
        monkeypatch.setattr(torch.version, "hip", "7.0" if target.startswith("gfx") else None)
        monkeypatch.setattr(triton.JITFunction, "run", run)
        for name, module in list(sys.modules.items()):
            if name.startswith("zoo.kernels"):
                if hasattr(module, "runs_triton"):
                    monkeypatch.setattr(module, "runs_triton", known)
                if hasattr(module, "machine_of"):
                    monkeypatch.setattr(module, "machine_of", lambda device: target)
        return seen

    return believe


def known(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = KERNEL_DTYPES) -> bool:
    return all(tensor.dtype in dtypes for tensor in tensors if tensor.is_floating_point())


def is_one(value: Any) -> bool:
    """A size or stride that Triton makes known to the compiler."""
    return type(value) is int and value == 1


def word(value: Any) -> str:
    if isinstance(value, Tensor):
        return "*" + WORDS[value.dtype]
    return "i32" if isinstance(value, int) else "fp32"


def made(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(shape, dtype=dtype, requires_grad=True)


def masks(queries: int, keys: int) -> Iterator[dict[str, Any]]:
    few = torch.ones(1, 1, -(-queries // 64), -(-keys // 64), dtype=torch.bool)
    lengths = torch.tensor([keys])
    yield from ({}, {"causal": True}, {"window": (5, 5)}, {"key_lengths": lengths}, {"block_mask": few})
    yield {"causal": True, "window": (9, 0), "key_lengths": lengths, "block_mask": few}


def call_attention(dtype: torch.dtype) -> None:
    for channels, queries in itertools.product((16, 32, 64, 72, 96, 104, 128, 256), (1, 50, 300)):
        q, k, v = (made(1, 2, count, channels, dtype=dtype) for count in (queries, 300, 300))
        for mask, biased in itertools.product(masks(queries, 300), (False, True)):
            size = {"block_size": (64, 64)} if "block_mask" in mask else {}
            for of_bias in {dtype, torch.float32} if biased else {None}:  # which autocast leaves as it is
                bias = None if of_bias is None else made(1, 2, 1, 300, dtype=of_bias)
                attention(q, k, v, bias, **mask, **size).sum().backward()
                attention(q, k, v, bias, **mask, **size, unified_max=0.0)
        bounds = torch.tensor([0, queries], dtype=torch.int32), torch.tensor([0, 300], dtype=torch.int32)
        for window in (None, (5, 5)):
            given = (x[0].transpose(0, 1) for x in (q, k, v))
            attention_varlen(*given, *bounds, window=window).sum().backward()
    attention(made(1, 1, 1, 64, dtype=dtype), *(made(1, 1, 9000, 64, dtype=dtype) for _ in "kv")).sum().backward()


def call_linear(dtype: torch.dtype) -> None:
    for channels, tokens, causal in itertools.product((3, 16, 64), (49, 1024), (False, True)):
        q, k, v = (made(1, 2, tokens, channels, dtype=dtype) for _ in "qkv")
        taylor_attention(q, k, v, causal).sum().backward()
        linear_attention(q, k, v, causal).sum().backward()
    simplified_linear_attention(q, k, v, torch.ones(64, 1, 3, 3, dtype=dtype), grid=(32, 32)).sum().backward()


def call_fftconv(dtype: torch.dtype) -> None:
    for power, gated in itertools.product(range(5, 17), (False, True)):
        u, k = made(1, 2, 1 << (power - 1), dtype=dtype), made(2, 1 << (power - 1), dtype=torch.float32)
        gates = {"in_gate": u, "out_gate": u} if gated else {}
        fftconv(u, k, **gates).sum().backward()
        for kind in (torch.float32, torch.bfloat16) if gated else ():  # of one gate or both, beside the signal's own
            other = u.detach().to(kind)
            fftconv(u, k, in_gate=other, out_gate=u).sum().backward()
            fftconv(u, k, in_gate=other, out_gate=other).sum().backward()


def call_others(dtype: torch.dtype) -> None:
    x, weight = made(2, 70, 48, dtype=dtype), made(96, 48, dtype=dtype)
    for mask in (None, torch.ones(2, 70, dtype=torch.bool)):
        max_similarity(x, weight, mask=mask).score.sum().backward()
    ids, _ = kmeans.assign(x.detach(), weight.detach().expand(2, 96, 48))
    for clusters in (1, 7, 96, 2000):
        kmeans.update(x.detach(), ids, made(2, clusters, 48, dtype=dtype).detach())
    clusters = torch.arange(96).view(12, 8)
    retrieve(x.detach(), arrange(weight.detach(), clusters))
    monarch(x, made(6, 8, 8, dtype=dtype), made(8, 6, 6, dtype=dtype)).sum().backward()
    for batch, blocks, width, inner, lanes, out in itertools.product((1, 3), (1, 2), (2, 4), (1, 2), (1, 2), (1, 2)):
        w1, w2 = made(blocks, width, inner, dtype=dtype), made(lanes, out, blocks * width // lanes, dtype=dtype)
        stride = 1 if inner > 1 else 5  # of a single entry, which may be any number
        for first in (w1, torch.as_strided(w1, w1.shape, (width * inner, inner, stride)), w1.mT.contiguous().mT):
            monarch(made(batch, blocks * inner, dtype=dtype), first, w2).sum().backward()
    for width, above, below in itertools.product((8, 16, 20, 50, 100, 300), (1, 6, 8, 9), (0, 1, 4, 8, 9)):
        y = made(3, 4 * width, dtype=dtype)
        rational(y, torch.ones(4, above, requires_grad=True), torch.ones(4, below, requires_grad=True)).sum().backward()
    biases = (None, *(torch.ones(32, dtype=kind) for kind in (dtype, torch.float32, torch.bfloat16, torch.float64)))
    for rows, inner, bias in itertools.product((1, 40, 200), (10, 48, 5000), biases):
        codes, scale = quantize_weight(torch.ones(32, inner))
        scale = scale if bias is None else scale.to(bias.dtype)
        quant_linear(torch.ones(rows, inner, dtype=dtype), codes, scale, bias)
    flips, boxes = (None, torch.ones(2, dtype=torch.bool)), (None, torch.tensor([[0, 0, 9, 9]] * 2))
    flags = itertools.product((1, 3), flips, boxes, (True, False), (True, False))
    for channels, flip, box, antialias, rounded in flags:
        images, scales = torch.zeros(2, 9, 9, channels, dtype=torch.uint8), [0.5] * channels
        said = {"boxes": box, "flip": flip, "antialias": antialias, "round_uint8": rounded, "dtype": dtype}
        preprocess(images, (5, 5), mean=scales, std=scales, **said)


SETTINGS = ((torch.float32, False), (torch.float32, True), (torch.bfloat16, False), (torch.float16, True))
"""dtypes, and whether the user allows TF32."""

CALLS = {"attention": call_attention, "linear": call_linear, "fftconv": call_fftconv, "others": call_others}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CALLS)
def test_launches_are_in_the_catalogue(name, target, record, tf32):
    launches = record(target)
    for dtype, allowed in SETTINGS:
        torch.backends.cuda.matmul.allow_tf32 = allowed
        CALLS[name](dtype)
    wanted = [name] if name in operations() else [other for other in operations() if other not in CALLS]
    held = catalogue(target, *wanted).values()
    distinct = {str((it.name, it.constants, it.signature, it.options)): it for it in launches}.values()
    missing = [it for it in distinct if not any(entry.stands_for(it) for entry in held)]
    said = "\n".join(f"{it.name} {it.constants} {it.options}" for it in missing[:3])
    assert {launch.kernel for launch in launches} == {entry.kernel for entry in held}
    assert not missing, f"{len(missing)} of {len(distinct)} launches are not in the catalogue:\n{said}"


def test_large_batches_can_be_launched(record):
    """More images, heads, tokens or problems than a grid's second axis takes."""
    seen, many, dtype = record("sm_90"), MOST_PROGRAMS + 5, torch.float32
    q, k, v = (made(many, 1, 1, 2, dtype=dtype) for _ in "qkv")
    attention(q, k, v).sum().backward()
    linear_attention(q, k, v).sum().backward()
    launch.forward(q.detach(), k.detach(), v.detach(), "taylor", False, 1e-6, launch.Plan(False, True, 1, 1))
    x, weight = made(many, 1, 4, dtype=dtype), made(3, 4, dtype=dtype)
    max_similarity(x, weight).score.sum().backward()
    kmeans.update(x.detach(), kmeans.assign(x.detach(), x.detach())[0], x.detach())
    retrieve(x[:, 0].detach(), arrange(weight.detach(), torch.arange(3).view(3, 1)))
    monarch(made(64 * many, 1, dtype=dtype), made(1, 1, 1, dtype=dtype), made(1, 1, 1, dtype=dtype)).sum().backward()
    rational(x, torch.ones(2, 6, requires_grad=True), torch.ones(2, 4, requires_grad=True)).sum().backward()
    fftconv(made(many, 1, 2, dtype=dtype), made(1, 2, dtype=dtype)).sum().backward()
    quant_linear(x[:, 0].detach(), *quantize_weight(torch.ones(3, 4)))
    assert {found.name for found in seen} >= {"product_kernel", "probed_logits_kernel", "assign_kernel"}
