"""Maximum similarity on a GPU: the logits (B, S, V) exist one tile at a time, in registers.

Forward: a program owns BV concepts of one image and walks over the positions, keeping a running maximum and its place.
Backward: only B V of the B S V logits pass a gradient. They are sorted by the position they go to, and a program adds
up what goes to one position, or over the images what goes to one concept: no atomics, the same bits every time, and
nothing whose size the host would have to wait for, so that a CUDA graph can hold it.
"""

import itertools
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.kernels.aot import Configuration
from zoo.kernels.dispatch import FUSED, dot_precision, dot_precisions, on_its_gpu

FIRST_NAN = tl.constexpr(1 << 30)
"""What lies below 0 by less than this is the place of a NaN."""


@triton.jit
def max_dot_kernel(
    hidden, embedding, mask, top, at, S, V, D,
    BS: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """top[b,v] = max_s <h_bs, e_v>, at[b,v] = the first such s, -1 if there is none."""
    tiles = tl.cdiv(V, BV)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    hidden += image * S * D
    v = tl.program_id(0) % tiles * BV + tl.arange(0, BV)  # [BV]
    d = tl.arange(0, BD)  # [BD]
    best = tl.full((BV,), float("-inf"), tl.float32)
    place = tl.full((BV,), -1, tl.int32)
    for first in range(0, S, BS):
        s = first + tl.arange(0, BS)  # [BS]
        logits = tl.zeros((BS, BV), tl.float32)
        # a plain loop: an unrolled one would keep every slice of D in shared memory
        for start in range(0, D, BD):
            h_at = hidden + (s[:, None] * D + (start + d[None, :]))
            h = tl.load(h_at, mask=(s[:, None] < S) & (start + d[None, :] < D), other=0.0)
            e_at = embedding + v[None, :].to(tl.int64) * D + start + d[:, None]
            e = tl.load(e_at, mask=(v[None, :] < V) & (start + d[:, None] < D), other=0.0)
            logits = tl.dot(h, e, logits, input_precision=PRECISION)
        valid = s < S
        if MASKED:
            valid = valid & (tl.load(mask + image * S + s, mask=s < S, other=0) != 0)
        logits = tl.where(valid[:, None], logits, float("-inf"))
        highest = tl.max(logits, 0)
        # where it is, or below 0 where the first NaN is, which a maximum leaves out and torch.max takes first
        where = tl.where(logits == highest[None, :], s[:, None], FIRST_NAN - 1)
        where = tl.min(tl.where(logits == logits, where, s[:, None] - FIRST_NAN), 0)
        broken = where < 0
        better = (highest > best) | broken  # strictly: the earlier position keeps a tie
        better = better & (best == best)
        best = tl.where(better, tl.where(broken, float("nan"), highest), best)
        place = tl.where(better, tl.where(broken, where + FIRST_NAN, where), place)
    out = image * V + v
    tl.store(top + out, best, mask=v < V)
    tl.store(at + out, place, mask=v < V)


@triton.jit
def positions_kernel(embedding, grad, order, offsets, out, V, D, BP: tl.constexpr, BD: tl.constexpr):
    """out[bag] = sum of grad[p] * embedding[p % V] over the pairs p (image, concept) that chose this position."""
    bag = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)  # [BD]
    begin, end = tl.load(offsets + bag), tl.load(offsets + bag + 1)
    total = tl.zeros((BD,), tl.float32)
    for first in range(begin, end, BP):
        p = first + tl.arange(0, BP)  # [BP]
        pair = tl.load(order + p, mask=p < end, other=0)
        weight = tl.load(grad + pair, mask=p < end, other=0.0)
        at = embedding + (pair % V)[:, None] * D + d[None, :]
        value = tl.load(at, mask=(p[:, None] < end) & (d[None, :] < D), other=0.0)
        total += tl.sum(weight[:, None] * value.to(tl.float32), 0)
    tl.store(out + bag * D + d, total.to(out.dtype.element_ty), mask=d < D)


@triton.jit
def concepts_kernel(hidden, grad, at, out, B, S, V, D, BP: tl.constexpr, BD: tl.constexpr):
    """out[v] = sum over the images b of grad[b, v] * hidden[b, at[b, v]], nothing where no position was chosen."""
    concept = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BD + tl.arange(0, BD)  # [BD]
    total = tl.zeros((BD,), tl.float32)
    for first in range(0, B, BP):
        image = (first + tl.arange(0, BP)).to(tl.int64)  # [BP]
        place = tl.load(at + image * V + concept, mask=image < B, other=-1)
        weight = tl.load(grad + image * V + concept, mask=place >= 0, other=0.0)
        row = hidden + (image * S + place)[:, None] * D + d[None, :]
        value = tl.load(row, mask=(weight != 0.0)[:, None] & (d[None, :] < D), other=0.0)
        total += tl.sum(weight[:, None] * value.to(tl.float32), 0)
    tl.store(out + concept * D + d, total.to(out.dtype.element_ty), mask=d < D)


TILES = {torch.float32: (64, 32, 32, 4, 3), torch.bfloat16: (64, 128, 64, 8, 2), torch.float16: (64, 128, 64, 8, 2)}
"""dtype: positions, concepts and features of a tile, warps, stages."""
AMD_STAGES = 2
BAG = (16, 128, 4)
"""Pairs and features at a time, warps."""


@on_its_gpu
def max_dot(hidden: Tensor, embedding: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """hidden (B, S, D), embedding (V, D), mask (B, S) -> top (B, V) float32, at (B, V) int32."""
    hidden, embedding = hidden.contiguous(), embedding.contiguous()
    (batch, length, dim), concepts = hidden.shape, embedding.shape[0]
    top = torch.empty(batch, concepts, dtype=torch.float32, device=hidden.device)
    at = torch.empty(batch, concepts, dtype=torch.int32, device=hidden.device)
    if not top.numel():
        return top, at
    positions, columns, features, warps, stages = TILES[hidden.dtype]
    max_dot_kernel[(triton.cdiv(concepts, columns) * batch,)](
        hidden, embedding, hidden if mask is None else mask.to(torch.uint8).contiguous(), top, at,
        length, concepts, dim, BS=positions, BV=columns, BD=features, MASKED=mask is not None,
        PRECISION=dot_precision(hidden.dtype), num_warps=warps, num_stages=AMD_STAGES if torch.version.hip else stages,
        **FUSED,
    )  # fmt: skip
    return top, at


@on_its_gpu
def max_dot_backward(grad: Tensor, hidden: Tensor, embedding: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """grad (B, V) and what the forward had -> dh (B, S, D), de (V, D)."""
    grad, hidden, embedding, at = (x.contiguous() for x in (grad.float(), hidden, embedding, at))
    (batch, length, dim), concepts = hidden.shape, len(embedding)
    dh, de = torch.empty_like(hidden), torch.empty_like(embedding)
    pairs, features, warps = BAG
    tile = {"BP": pairs, "BD": features, "num_warps": warps, **FUSED}
    if dh.numel():
        positions_kernel[(batch * length, triton.cdiv(dim, features))](
            embedding, grad, *_bags(grad, at, length), dh, concepts, dim, **tile
        )
    if de.numel():
        concepts_kernel[(concepts, triton.cdiv(dim, features))](
            hidden, grad, at, de, batch, length, concepts, dim, **tile
        )
    return dh, de


def _bags(grad: Tensor, at: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The B V pairs (image, concept) in the order of the positions that they chose, and where each position's start
    (B S + 1,). Pairs without a gradient come last: to leave them out, the host would have to wait for their number."""
    count = grad.shape[0] * length
    dtype = torch.int32 if count < 1 << 31 else torch.int64
    first = torch.arange(0, count, max(1, length), dtype=dtype, device=at.device)[:, None]
    keys, order = torch.where((grad != 0) & (at >= 0), first + at, count).flatten().sort(stable=True)
    return order, torch.searchsorted(keys, torch.arange(count + 1, dtype=dtype, device=at.device))


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """Every configuration that the launchers can choose ("bf16" stands for fp16 too)."""
    for dtype, word in {torch.float32: "fp32", torch.bfloat16: "bf16"}.items():
        bs, bv, bd, warps, stages = TILES[dtype]
        types = {"hidden": f"*{word}", "embedding": f"*{word}", "mask": "*u8", "top": "*fp32", "at": "*i32"}
        types |= {"S": "i32", "V": "i32", "D": "i32"}
        options = {"num_warps": warps, "num_stages": AMD_STAGES if amd else stages}
        for precision, masked in itertools.product(dot_precisions(word, amd=amd), (True, False)):
            constants = {"BS": bs, "BV": bv, "BD": bd, "MASKED": masked, "PRECISION": precision}
            name = f"max_dot {word}, {precision}{', masked' * masked}"
            free = () if masked else ("mask",)
            yield Configuration(name, max_dot_kernel, types, constants, ("D",), options, matrix=True, free=free)
        pairs, features, warps = BAG
        constants, options = {"BP": pairs, "BD": features}, {"num_warps": warps}
        types = {"embedding": f"*{word}", "hidden": f"*{word}", "out": f"*{word}", "grad": "*fp32", "at": "*i32"}
        types |= {"order": "*i64", "offsets": "*i64"} | dict.fromkeys(("B", "S", "V", "D"), "i32")
        yield Configuration(f"positions {word}", positions_kernel, types, constants, ("D",), options)
        yield Configuration(f"concepts {word}", concepts_kernel, types, constants, ("D",), options)
