"""Sums of states over the chunks before (or after) each one, in a fixed order.

PyTorch's cumsum of floating-point numbers is not deterministic on a GPU. Every state is read once and written once.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.kernels.dispatch import FUSED

TILE = {"ROWS": 16, "BLOCK": 128}
"""Chunks and numbers of a state at a time."""
WARPS = 4


@triton.jit(do_not_specialize=("CHUNKS",))
def scan_kernel(state, out, CHUNKS, SIZE, REVERSE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """out[g, c] = sum of state[g, j] over j < c, or over j > c for REVERSE: BLOCK of SIZE numbers of one head g."""
    tiles = tl.cdiv(SIZE, BLOCK)
    head = (tl.program_id(0) // tiles).to(tl.int64) * CHUNKS * SIZE
    at = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, CHUNKS, ROWS):
        row = first + tl.arange(0, ROWS)  # [ROWS]
        to, source = row, row - 1
        if REVERSE:
            to, source = CHUNKS - 1 - row, CHUNKS - row
        inside = (row[:, None] < CHUNKS) & (at[None, :] < SIZE)
        place = head + source.to(tl.int64)[:, None] * SIZE + at[None, :]
        value = tl.load(state + place, mask=inside & (row[:, None] > 0), other=0.0)
        place = head + to.to(tl.int64)[:, None] * SIZE + at[None, :]
        tl.store(out + place, total[None, :] + tl.cumsum(value, 0), mask=inside)
        total += tl.sum(value, 0)


def scan(state: Tensor, *, reverse: bool = False) -> Tensor:
    """state (B H, chunks, F, W) float32, contiguous -> the sum of earlier chunks for each, or of later ones."""
    out = torch.empty_like(state)
    heads, chunks, size = len(state), state.shape[1], state[0, 0].numel()
    programs = heads * triton.cdiv(size, TILE["BLOCK"])
    scan_kernel[(programs,)](state, out, chunks, size, REVERSE=reverse, **TILE, num_warps=WARPS, **FUSED)
    return out


def scans() -> dict[str, dict[str, Any]]:
    """Every launch that `scan` can choose, by name: its constants."""
    return {name: {"REVERSE": reverse, **TILE} for name, reverse in (("before", False), ("after", True))}
