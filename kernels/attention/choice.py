"""Tile sizes for a shape: every configuration that the launcher can choose.

The tables come from compiling candidates ahead of time (registers, shared memory, no spills), and
benchmarks/kernels_aot.csv holds what each of them needs.
"""

from typing import NamedTuple

from zoo.kernels.dispatch import Machine


class Tiles(NamedTuple):
    """rows: queries, columns: keys of a tile; warps and stages (loads in flight) of a program."""

    rows: int
    columns: int
    warps: int
    stages: int


DELTA_TILES = Tiles(64, 64, 4, 1)

MERGE_TILES = Tiles(1, 1, 4, 1)

MOST_SPLITS = 32
"""Programs that may share the keys of one query tile."""

WIDTHS = (32, 64, 128, 256)
"""Columns of a tile in registers, powers of two."""

HEADS = {80: (64, 16), 96: (64, 32)}
"""Largest head that is kept as two tiles, and their columns: a head of 80 channels as one tile would be 128."""


def width_of(channels: int) -> int:
    """The smallest width that holds `channels`."""
    return next(width for width in WIDTHS if width >= channels)


def parts_of(channels: int) -> tuple[int, int]:
    """Columns of a head's first and second tile; 0 where there is no second."""
    width = width_of(channels)
    found = (parts for limit, parts in HEADS.items() if width == 128 and channels <= limit)
    return next(found, (width, 0))


def liberties(machine: Machine, width: int, itemsize: int, unified: bool = False) -> dict[str, bool]:
    """The forward's LAZY and SOFT (see forward.py): what FlashAttention-4 does on sm_100, in 16 bits.

    Under a unified maximum no sum is rescaled, and exponents are not all negative, as the polynomial needs them.
    """
    scarce = machine == "sm_100" and itemsize == 2 and not unified
    return {"LAZY": scarce, "SOFT": scarce and width <= 128}


def forward_tiles(
    width: int, queries: int, *, busy: bool, wide_bias: bool = False, itemsize: int = 2, machine: Machine
) -> Tiles:
    """busy: with a bias, a window or a block mask, whose addresses take registers. wide_bias: wider than q, k, v.

    sm_80 and sm_100 take smaller tiles: the former's operands take registers, and the latter's dk and dv spill.
    """
    amd, in_registers = _kind(machine)
    if itemsize == 4:
        return Tiles(32, 32, 4, 1)
    columns = 32 if width == 256 or amd or wide_bias or (busy and width != 64) else 64
    stages = 1 if amd or (busy and width == 256) or (wide_bias and width == 128 and machine == "sm_100") else 2
    if queries <= 16:
        return Tiles(16, 32 if machine == "sm_100" else columns, 4, stages)
    if in_registers and width == 64 and busy and queries <= 64:
        return Tiles(64, 32, 4, 2)
    small = in_registers and (width == 128 or (width == 256 and machine == "sm_80"))
    if queries <= 64 or amd or (busy and width != 64) or small:
        wide = width == 256 or (width == 128 and busy and not amd)
        return Tiles(64, columns, 8 if wide else 4, stages)
    return Tiles(128, columns, 8, stages if busy or width == 256 else 3)


def query_gradient_tiles(
    width: int, *, busy: bool, wide_bias: bool = False, itemsize: int = 2, machine: Machine
) -> Tiles:
    amd, in_registers = _kind(machine)
    if itemsize == 4 or width == 256:
        return _wide_gradient_tiles(width, itemsize, machine)
    narrow = amd or (busy and width == 128) or (in_registers and (busy or width == 128))
    early = width <= 64 and not (amd or (wide_bias and machine != "sm_80"))
    return Tiles(64, 32 if narrow else 64, 4, 2 if early else 1)


def key_gradient_tiles(width: int, keys: int, *, busy: bool, itemsize: int = 2, machine: Machine) -> Tiles:
    """busy: with any mask or bias."""
    amd, in_registers = _kind(machine)
    if itemsize == 4 or width == 256:
        return _wide_gradient_tiles(width, itemsize, machine)
    if width == 128 and busy and not amd:
        return {"sm_80": Tiles(32, 32, 8, 1), "sm_90": Tiles(16, 64, 8, 1), "sm_100": Tiles(32, 64, 8, 1)}[machine]
    if width == 128 and in_registers:
        return Tiles(32, 64, 8, 1)
    if in_registers and busy:
        return Tiles(32, 32, 4, 1)
    if amd or busy or keys <= 64 or in_registers:
        return Tiles(32, 64, 4, 2 if in_registers and width == 32 else 1)
    return Tiles(32, 128, 8, 1) if width == 128 else Tiles(64, 128, 8, 2)


def bias_gradient_tiles(width: int, *, itemsize: int = 2, machine: Machine) -> Tiles:
    amd, in_registers = _kind(machine)
    if itemsize == 4 or width == 256:
        return _wide_gradient_tiles(width, itemsize, machine)
    if amd or (in_registers and width == 128):
        return Tiles(32, 32, 4, 1)
    return Tiles(32 if in_registers else 64, 64, 8, 1)


def _wide_gradient_tiles(width: int, itemsize: int, machine: Machine) -> Tiles:
    """Smaller where four tiles of float32 would take more shared memory than a consumer card has."""
    return Tiles(16, 16, 8, 1) if (width, itemsize, machine) == (256, 4, "sm_80") else Tiles(32, 32, 8, 1)


def _kind(machine: Machine) -> tuple[bool, bool]:
    return machine == "gfx942", machine in ("sm_80", "sm_100")


def splits_for(programs: int, keys: int, columns: int, processors: int) -> int:
    """Programs per query tile: enough to fill the machine twice, each with two tiles of keys or more."""
    wanted = min(2 * processors // max(programs, 1), keys // (2 * columns), MOST_SPLITS)
    return 1 if wanted < 2 else 1 << (wanted.bit_length() - 1)
