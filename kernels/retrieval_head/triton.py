"""The probed logits on a GPU: every program reads its rows where they lie and multiplies them with one token.

A token has its own clusters, so the rows meet one vector each: the time is that of reading them, P R D elements for
each token, and no gathered copy is written.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.kernels.aot import Configuration
from zoo.kernels.dispatch import FUSED, on_its_gpu


@triton.jit
def probed_logits_kernel(
    hidden, rows, probes, logits, P, R, D, BR: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """logits[t, p, r] = sum_d hidden[t, d] rows[probes[t, p], r, d] for BR of the P R pairs (p, r)."""
    tiles = tl.cdiv(P * R, BR)
    token = (tl.program_id(0) // tiles).to(tl.int64)
    pair = tl.program_id(0) % tiles * BR + tl.arange(0, BR)  # [BR]
    inside = pair < P * R
    cluster = tl.load(probes + token * P + pair // R, mask=inside, other=0)
    row = cluster * R + pair % R
    total = tl.zeros((BR, BD), tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)  # [BD]
        h = tl.load(hidden + token * D + d, mask=d < D, other=0.0).to(tl.float32)
        value = tl.load(rows + row[:, None] * D + d[None, :], mask=inside[:, None] & (d[None, :] < D), other=0.0)
        total += value.to(tl.float32) * h[None, :]
    tl.store(logits + token * P * R + pair, tl.sum(total, 1), mask=inside)


TILE = (32, 128, 4)
"""Rows and features of a tile, warps."""


@on_its_gpu
def probed_logits(hidden: Tensor, rows: Tensor, probes: Tensor) -> Tensor:
    """hidden (T, D), rows (C, R, D), probes (T, P) int64 -> (T, P, R) float32."""
    hidden, rows, probes = hidden.contiguous(), rows.contiguous(), probes.contiguous()
    (tokens, count), (_, size, dim) = probes.shape, rows.shape
    logits = torch.empty(tokens, count, size, dtype=torch.float32, device=rows.device)
    if not logits.numel():
        return logits
    height, width, warps = TILE
    probed_logits_kernel[(triton.cdiv(count * size, height) * tokens,)](
        hidden, rows, probes, logits, count, size, dim, BR=height, BD=width, num_warps=warps, **FUSED
    )
    return logits


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """Every configuration that the launcher can choose, the same for every maker of GPUs."""
    height, width, warps = TILE
    for word in ("fp32", "bf16"):
        types = {"hidden": f"*{word}", "rows": f"*{word}", "probes": "*i64", "logits": "*fp32"}
        types |= {"P": "i32", "R": "i32", "D": "i32"}
        constants = {"BR": height, "BD": width}
        yield Configuration(f"probed {word}", probed_logits_kernel, types, constants, ("R", "D"), {"num_warps": warps})
