"""Every kernel configuration that the launcher can choose, for compilation ahead of time."""

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

FEATURES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "causal": ("right",),
    "window, bias, key lengths": ("left", "right", "bias", "key_lengths"),
    "blocks": ("blocks", "tile_counts", "tile_indices"),
    "packed, causal": ("cu_queries", "cu_keys", "right"),
}
"""Which optional arguments are present."""

OPTIONAL = ("bias", "key_lengths", "cu_queries", "cu_keys", "blocks", "tile_counts", "tile_indices", "left", "right")


def configurations(
    *,
    features: tuple[str, ...] = tuple(FEATURES),
    dtypes: tuple[str, ...] = ("bf16", "fp32"),
    widths: tuple[int, ...] = choice.WIDTHS,
    amd: bool = False,
    in_registers: bool = False,
) -> Iterator[Configuration]:
    """One `Configuration` per kernel, width, feature and dtype ("bf16" stands for fp16 too)."""
    for dtype in dtypes:
        machine = {"amd": amd, "in_registers": in_registers}
        size = 4 if dtype == "fp32" else 2
        for width in widths:
            yield _configuration(delta_kernel, "delta", choice.DELTA_TILES, width, dtype, ())
            for feature in features:
                present = FEATURES[feature]
                busy = not {"bias", "left", "blocks"}.isdisjoint(present)
                for queries in (1000, 64, 16):
                    tiles = choice.forward_tiles(width, queries, busy=busy, itemsize=size, **machine)
                    name = f"forward of {queries} queries, {feature}"
                    yield _configuration(forward_kernel, name, tiles, width, dtype, present)
                tiles = choice.query_gradient_tiles(width, busy=busy, itemsize=size, **machine)
                yield _configuration(query_gradient_kernel, f"dq, {feature}", tiles, width, dtype, present)
                for keys in (1000, 64):
                    tiles = choice.key_gradient_tiles(width, keys, busy=bool(present), itemsize=size, **machine)
                    name = f"dk and dv of {keys} keys, {feature}"
                    yield _configuration(key_gradient_kernel, name, tiles, width, dtype, present)
            tiles = choice.forward_tiles(width, 16, busy=False, itemsize=size, **machine)
            yield _configuration(forward_kernel, "forward, split", tiles, width, dtype, (), SPLITS=4, o="fp32")
            yield _configuration(merge_kernel, "merge", choice.Tiles(16, 16, 4, 1), width, dtype, (), SPLITS=32)
            tiles = choice.bias_gradient_tiles(width, itemsize=size, **machine)
            yield _configuration(bias_gradient_kernel, "dbias", tiles, width, dtype, ("bias",))


def _configuration(
    kernel: Any, name: str, tiles: choice.Tiles, width: int, dtype: str, present: tuple[str, ...], **special: Any
) -> Configuration:
    constants: dict[str, Any] = {
        "D": width, "DV": width, "WIDTH": width, "WIDTH_V": width, "BM": tiles.rows, "BN": tiles.columns,
        "SPLITS": 1, "SLOTS": 32, "PRECISION": "tf32",
        "stride_bias_n": 1, "ALL_B": True, "ALL_H": False, "ALL_M": False, "ALL_N": False,
    }  # fmt: skip
    constants |= {key: None for key in OPTIONAL if key not in present}
    constants |= {key: value for key, value in special.items() if key in constants}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    signature = {key: _type(key, dtype, special) for key in kernel.arg_names if key not in constants}
    aligned = tuple(key for key in signature if key.startswith("stride_") and "bias" not in key)
    return Configuration(
        f"{name}, {width} channels, {dtype}",
        kernel,
        signature,
        constants,
        aligned,
        {"num_warps": tiles.warps, "num_stages": tiles.stages},
    )


def _type(argument: str, dtype: str, special: dict[str, Any]) -> str:
    pointers = ("q", "k", "v", "o", "do", "dq", "dk", "dv", "bias")
    if argument in pointers:
        return "*" + special.get(argument, dtype)
    if argument in FLOAT32:
        return "*fp32"
    if argument in INT32:
        return "*i32"
    if argument == "blocks":
        return "*u8"
    return "fp32" if argument in SCALARS else "i32"
