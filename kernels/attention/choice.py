"""Tile sizes for a shape: every configuration that the launcher can choose.

The tables come from compiling candidates ahead of time (registers, shared memory, no spills): tests/kernels/
test_attention_ahead.py holds them to it.
"""

from typing import NamedTuple

import torch


class Tiles(NamedTuple):
    """rows: queries, columns: keys of a tile; warps and stages (loads in flight) of a program."""

    rows: int
    columns: int
    warps: int
    stages: int


WIDTHS = (16, 32, 64, 128, 256)
"""Channels of a tile in registers; a head of 80 channels is computed as one of 128 with zeros."""

AMD = torch.version.hip is not None


def width_of(channels: int) -> int:
    """The smallest width that holds `channels`."""
    return next(width for width in WIDTHS if width >= channels)


def forward_tiles(width: int, queries: int, itemsize: int = 2, amd: bool = AMD) -> Tiles:
    columns = 32 if width == 256 or itemsize == 4 else 64
    stages = 1 if amd else (2 if width == 256 or itemsize == 4 else 3)
    if queries <= 16:
        return Tiles(16, columns, 4, stages)
    if queries <= 64 or itemsize == 4 or amd:
        return Tiles(32 if itemsize == 4 and width == 256 else 64, columns, 4, stages)
    return Tiles(128, columns, 8, stages)


def query_gradient_tiles(width: int, itemsize: int = 2, amd: bool = AMD) -> Tiles:
    if itemsize == 4:
        return Tiles(32, 32, 4, 1)
    if amd or width == 256:
        return Tiles(64, 32, 4 if width < 256 else 8, 1)
    return Tiles(64, 64, 4, 2 if width <= 64 else 1)


def key_gradient_tiles(width: int, itemsize: int = 2, amd: bool = AMD) -> Tiles:
    if itemsize == 4:
        return Tiles(32, 32, 4, 1)
    if amd or width == 256:
        return Tiles(32, 64, 4 if width < 256 else 8, 1)
    return Tiles(64, 64, 4, 2 if width <= 64 else 1)


def bias_gradient_tiles(width: int, itemsize: int = 2, amd: bool = AMD) -> Tiles:
    if itemsize == 4 or amd or width == 256:
        return Tiles(32, 32, 4, 1)
    return Tiles(64, 64, 4, 1)


def splits_for(programs: int, keys: int, columns: int, processors: int) -> int:
    """Programs per query tile: enough to fill the machine twice, each with two tiles of keys or more."""
    wanted = min(2 * processors // max(programs, 1), keys // (2 * columns), 32)
    return 1 if wanted < 2 else 1 << (wanted.bit_length() - 1)
