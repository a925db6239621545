"""Every kernel configuration that the launcher can choose, for compilation ahead of time.

Tiles depend on the machine, the channels, the dtype, the queries, and whether a mask or a bias is there. Optional
arguments only add to what a kernel holds, and so do channels. So each tile is compiled with the largest heads and sets
of options that it is launched with, which stand for smaller ones, and the main shapes also with what models use most.
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
SCALARS = ("scale", "scale2", "phi2")

LENGTHS = ("cu_queries", "cu_keys", "key_lengths")
BLOCKS = ("blocks", "tile_counts", "tile_indices")
OPTIONAL = ("bias", *LENGTHS, *BLOCKS, "left", "right", "phi2")

OPTIONS: dict[str, tuple[str, ...]] = {
    "blocks, window, bias": ("bias", *BLOCKS, "key_lengths", "left", "right"),
    "lengths, window, bias": ("bias", *LENGTHS, "left", "right"),
    "lengths, causal": (*LENGTHS, "right"),
    "bias": ("bias",),
    "plain": (),
}
"""Which optional arguments are present. Every other set is a part of one of the first three."""

UNIFIED: dict[str, tuple[str, ...]] = {
    "blocks, window, bias, unified maximum": (*OPTIONS["blocks, window, bias"], "phi2"),
    "lengths, window, bias, unified maximum": ("bias", "key_lengths", "left", "right", "phi2"),
    "lengths, causal, unified maximum": ("key_lengths", "right", "phi2"),
}
"""The same of a forward under a unified maximum, which packed sequences do not have."""

DTYPES = (("bf16", "bf16", "tf32"), ("bf16", "fp32", "tf32"), ("fp32", "fp32", "ieee"), ("fp32", "fp32", "tf32"))
"""Of q, k, v, of the bias, which stays in float32 under autocast, and of products. "bf16" stands for fp16 too."""

GROWS = ("D", "DV", "SPLITS", "bias", *LENGTHS, "left", "right")
FREE = ("WIDTH", "WIDTH_V", "EXTRA", "EXTRA_V", "ALL_B", "ALL_H", "ALL_M", "ALL_N", "stride_bias_n", "o")
"""Columns follow from the channels; the axes along which a bias is broadcast decide over a few integers; o is float32
where the keys are split."""

HEADS = (256, 128, 96, 80, 64, 32)
"""Channels of a head that fill its tiles, the largest first. float32 has one tile for all of them."""

MAIN = (32, 64, 128)


def configurations(target: str = "sm_90") -> Iterator[Configuration]:
    """All that is not a part of another one, and what models use most."""
    kept: list[Configuration] = []
    for found in _all(target):
        exactly = _is_usual(found)
        if not any(other.stands_for(found) and (not exactly or found.stands_for(other)) for other in kept):
            kept.append(found)
            yield found


def _is_usual(found: Configuration) -> bool:
    """What models call most: 32 to 128 channels in 16 bits, without options, or with a bias alone."""
    present = set(OPTIONAL) & set(found.signature)
    heads = MAIN if present else HEADS[1:]
    return found.signature.get("q") == "*bf16" and present <= {"bias"} and found.constants["D"] in heads


def _all(machine: str) -> Iterator[Configuration]:
    for dtypes in DTYPES:
        for channels in HEADS:
            yield from _of_width(machine, channels, dtypes[:2], dtypes[2])


def _of_width(machine: str, channels: int, dtypes: tuple[str, str], precision: str) -> Iterator[Configuration]:
    dtype, bias = dtypes
    size, width = 2 if dtype == "bf16" else 4, choice.width_of(channels)
    about = f"{channels} channels, {dtype}{', ' + precision if size == 4 else ''}"
    about += f", bias in {bias}" if bias != dtype else ""
    given: dict[str, Any] = {"itemsize": size, "machine": machine}
    fixed: dict[str, Any] = {"PRECISION": precision}
    for said, present in (OPTIONS | UNIFIED).items():
        wide_bias = "bias" in present and bias != dtype
        liberties = choice.liberties(machine, width, size, "phi2" in present)
        for queries in (1000, 64, 16):
            tiles = choice.forward_tiles(width, queries, busy=_busy(present), wide_bias=wide_bias, **given)
            name = f"forward of {queries} queries, {said}, {about}"
            yield _configuration(forward_kernel, name, tiles, channels, dtypes, present, fixed | liberties)
    for said, present in OPTIONS.items():
        busy, wide_bias = _busy(present), "bias" in present and bias != dtype
        tiles = choice.query_gradient_tiles(width, busy=busy, wide_bias=wide_bias, **given)
        yield _configuration(query_gradient_kernel, f"dq, {said}, {about}", tiles, channels, dtypes, present, fixed)
        for keys in (1000, 64):
            tiles = choice.key_gradient_tiles(width, keys, busy=bool(present), **given)
            name = f"dk and dv of {keys} keys, {said}, {about}"
            yield _configuration(key_gradient_kernel, name, tiles, channels, dtypes, present, fixed)
    tiles = choice.bias_gradient_tiles(width, **given)
    for said in ("blocks, window, bias", "bias"):
        present = tuple(name for name in OPTIONS[said] if name in bias_gradient_kernel.arg_names)
        yield _configuration(bias_gradient_kernel, f"dbias, {said}, {about}", tiles, channels, dtypes, present, fixed)
    tiles = choice.DELTA_TILES
    yield _configuration(delta_kernel, f"delta, {about}", tiles, channels, dtypes, ("cu_queries",), fixed)
    tiles = choice.MERGE_TILES
    yield _configuration(merge_kernel, f"merge, {about}", tiles, channels, dtypes, (), fixed)


def _busy(present: tuple[str, ...]) -> bool:
    return not {"bias", "left"}.isdisjoint(present)


def _configuration(
    kernel: Any,
    name: str,
    tiles: choice.Tiles,
    channels: int,
    dtypes: tuple[str, str],
    present: tuple[str, ...],
    fixed: dict[str, Any],
) -> Configuration:
    width, extra = choice.parts_of(channels)
    if "WIDTH" not in kernel.arg_names:  # element by element, where a head needs no matrix tiles
        width, extra = choice.width_of(channels), 0
    constants: dict[str, Any] = {
        "D": channels, "DV": channels, "WIDTH": width, "WIDTH_V": width, "EXTRA": extra, "EXTRA_V": extra,
        "BM": tiles.rows, "BN": tiles.columns, "SPLITS": choice.MOST_SPLITS, "stride_bias_n": 1,
        "ALL_B": True, "ALL_H": False, "ALL_M": False, "ALL_N": False, **fixed,
    }  # fmt: skip
    constants |= {key: None for key in OPTIONAL if key not in present}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    signature = {key: _type(key, *dtypes) for key in kernel.arg_names if key not in constants}
    aligned = tuple(key for key in signature if key.startswith("stride_") and "bias" not in key)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    multiplies = kernel not in (delta_kernel, merge_kernel)
    # blocks together with a bias are rare, gradients of two-part heads spill a few registers, and a unified maximum is
    # for few queries
    whole = channels in MAIN or (kernel is forward_kernel and channels in (80, 96))
    main = dtypes[0] == "bf16" and multiplies and whole and not {"blocks", "bias"} <= set(present)
    main = main and ("phi2" not in present or tiles.rows == 16)
    # elsewhere the blocks of a mask are a list that is walked, another kernel
    grows = (*GROWS, "blocks") if kernel is bias_gradient_kernel else GROWS
    matrix = multiplies and constants.get("PRECISION") != "ieee"
    return Configuration(name, kernel, signature, constants, aligned, options, matrix, main, grows, FREE)


def _type(argument: str, dtype: str, bias: str) -> str:
    if argument in ("q", "k", "v", "o", "do", "dq", "dk", "dv"):
        return "*" + dtype
    if argument == "bias":
        return "*" + bias
    if argument in FLOAT32:
        return "*fp32"
    if argument in INT32:
        return "*i32"
    if argument == "blocks":
        return "*u8"
    return "fp32" if argument in SCALARS else "i32"
