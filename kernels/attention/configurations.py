"""Every kernel configuration that the launcher can choose, for compilation ahead of time.

Tiles depend on the machine, the channels, the dtype, the queries and whether a mask or a bias is there; optional
arguments only add to what a kernel holds. So each tile is compiled with the largest sets of options that it can be
launched with, which stand for their subsets, and the main shapes (64 and 128 channels in 16 bits) also with what models
use most. float32 is compiled as it is by default; rounded to TF32, with the same tiles, for the main channels.
"""

from collections.abc import Iterator
from typing import Any

from zoo.kernels.aot import Configuration
from zoo.kernels.attention import choice
from zoo.kernels.attention.backward import delta_kernel, key_gradient_kernel, query_gradient_kernel
from zoo.kernels.attention.bias_gradient import bias_gradient_kernel
from zoo.kernels.attention.forward import forward_kernel, merge_kernel

FLOAT32 = ("lse", "delta", "dlse", "dbias", "lse_parts", "o_parts")
INT32 = ("key_lengths", "cu_queries", "cu_keys", "tile_counts", "tile_indices")
SCALARS = ("scale", "scale2")

LARGEST: dict[str, tuple[str, ...]] = {
    "packed, causal": ("cu_queries", "cu_keys", "right"),
    "window, bias, key lengths": ("left", "right", "bias", "key_lengths"),
    "blocks, bias, window, key lengths": (
        "blocks", "tile_counts", "tile_indices", "bias", "left", "right", "key_lengths",
    ),
}  # fmt: skip
"""Which optional arguments are present: every other set is a part of one of these."""

USUAL: dict[str, tuple[str, ...]] = {"plain": (), "causal": ("right",), "bias": ("bias",)}

OPTIONAL = ("bias", "key_lengths", "cu_queries", "cu_keys", "blocks", "tile_counts", "tile_indices", "left", "right")

CHANNELS = (16, 32, 64, 80, 96, 128, 256)
"""Channels of a head that fill its tiles."""

MAIN = (64, 128)

SPLITS = tuple(1 << power for power in range(1, 6))


def configurations(target: str = "sm_90") -> Iterator[Configuration]:
    """Kernels by channels, options and dtype ("bf16" stands for fp16 too), each distinct one once."""
    seen = set()
    for found in _all(target):
        key = (found.kernel.fn.__name__, str(found.constants), str(found.options), str(found.signature))
        if key not in seen:
            seen.add(key)
            yield found


def _all(machine: str) -> Iterator[Configuration]:
    for channels in CHANNELS:
        yield from _of_width(machine, channels, "bf16", "tf32")
        for precision in ("ieee", "tf32") if channels in MAIN else ("ieee",):
            yield from _of_width(machine, channels, "fp32", precision)


def _of_width(machine: str, channels: int, dtype: str, precision: str) -> Iterator[Configuration]:
    main = channels in MAIN and dtype == "bf16"
    size = 2 if dtype == "bf16" else 4
    width = choice.width_of(channels)
    about = f"{channels} channels, {dtype}{', ' + precision if size == 4 else ''}"
    given: dict[str, Any] = {"itemsize": size, "machine": machine}
    lists = USUAL | LARGEST if main else LARGEST
    fixed = {"PRECISION": precision, **choice.liberties(machine, width, size)}
    for said, present in lists.items():
        busy = not {"bias", "left", "blocks"}.isdisjoint(present)
        for queries in (1000, 64, 16):
            tiles = choice.forward_tiles(width, queries, busy=busy, **given)
            name = f"forward of {queries} queries, {said}, {about}"
            yield _configuration(forward_kernel, name, tiles, channels, dtype, present, fixed)
        tiles = choice.query_gradient_tiles(width, busy=busy, **given)
        yield _configuration(query_gradient_kernel, f"dq, {said}, {about}", tiles, channels, dtype, present, fixed)
        for keys in (1000, 64):
            tiles = choice.key_gradient_tiles(width, keys, busy=bool(present), **given)
            name = f"dk and dv of {keys} keys, {said}, {about}"
            yield _configuration(key_gradient_kernel, name, tiles, channels, dtype, present, fixed)
    tiles = choice.bias_gradient_tiles(width, **given)
    present = tuple(name for name in OPTIONAL if name in ("bias", "key_lengths", "left", "right", "blocks"))
    yield _configuration(bias_gradient_kernel, f"dbias, {about}", tiles, channels, dtype, present, fixed)
    if channels == width and (size == 2 or precision == "ieee"):
        yield _configuration(delta_kernel, f"delta, {about}", choice.DELTA_TILES, channels, dtype, ("cu_queries",), {})
        merge = fixed | {"SPLITS": SPLITS[-1], "SLOTS": SPLITS[-1]}
        yield _configuration(merge_kernel, f"merge, {about}", choice.Tiles(16, 16, 4, 1), channels, dtype, (), merge)
        tiles = choice.forward_tiles(width, 16, busy=False, **given)
        split = fixed | {"SPLITS": SPLITS[-1]}
        name = f"forward, split, {about}"
        yield _configuration(forward_kernel, name, tiles, channels, dtype, ("right", "key_lengths"), split)


def _configuration(
    kernel: Any,
    name: str,
    tiles: choice.Tiles,
    channels: int,
    dtype: str,
    present: tuple[str, ...],
    fixed: dict[str, Any],
) -> Configuration:
    width, extra = choice.parts_of(channels)
    if "WIDTH" not in kernel.arg_names:  # element by element, where a head needs no matrix tiles
        width, extra = choice.width_of(channels), 0
    constants: dict[str, Any] = {
        "D": channels, "DV": channels, "WIDTH": width, "WIDTH_V": width, "EXTRA": extra, "EXTRA_V": extra,
        "BM": tiles.rows, "BN": tiles.columns, "SPLITS": 1, "stride_bias_n": 1,
        "ALL_B": True, "ALL_H": False, "ALL_M": False, "ALL_N": False, **fixed,
    }  # fmt: skip
    constants |= {key: None for key in OPTIONAL if key not in present}
    split = constants["SPLITS"] > 1
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    signature = {key: _type(key, "fp32" if key == "o" and split else dtype) for key in kernel.arg_names}
    signature = {key: word for key, word in signature.items() if key not in constants}
    aligned = tuple(key for key in signature if key.startswith("stride_") and "bias" not in key)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    matrix = kernel not in (delta_kernel, merge_kernel) and constants.get("PRECISION") != "ieee"
    main = channels in MAIN and dtype == "bf16" and not {"blocks", "bias"} <= set(present)
    return Configuration(name, kernel, signature, constants, aligned, options, matrix, main)


def _type(argument: str, dtype: str) -> str:
    if argument in ("q", "k", "v", "o", "do", "dq", "dk", "dv", "bias"):
        return "*" + dtype
    if argument in FLOAT32:
        return "*fp32"
    if argument in INT32:
        return "*i32"
    if argument == "blocks":
        return "*u8"
    return "fp32" if argument in SCALARS else "i32"
