"""The configurations that the launchers of the linear-attention kernels can choose, to be compiled ahead of time."""

import itertools
from collections.abc import Iterator
from typing import Any

from zoo.kernels.aot import Configuration
from zoo.kernels.linear.launch import flags, precisions, tile_of
from zoo.kernels.linear.reference import Kind
from zoo.kernels.linear.scan import WARPS, scan_kernel, scans
from zoo.kernels.linear.triton import forward_kernel, keys_kernel, queries_kernel, state_kernel

GROWS = ("BC", "BV", "CAUSAL", "NEAR", "FAR", "WEIGHTED", "RELU")

KINDS: dict[str, tuple[Kind, int]] = {"relu": ("relu", 64), "taylor": ("taylor", 16), "wide taylor": ("taylor", 64)}
"""SLAB's heads, BASED's, and the widest that a polynomial can have; 64 values each."""


def configurations(target: str = "sm_90") -> Iterator[Configuration]:
    """Every kernel, with near and far keys."""
    sums = {"state": "*fp32", "out": "*fp32", "CHUNKS": "i32", "SIZE": "i32"}
    for order, fixed in scans().items():
        yield Configuration(f"scan {order}", scan_kernel, sums, fixed, (), {"num_warps": WARPS})
    kernels = {"forward": forward_kernel, "queries": queries_kernel, "keys": keys_kernel, "state": state_kernel}
    for word, itemsize in (("fp32", 4), ("bf16", 2)):
        said = precisions(itemsize, target.startswith("gfx"))
        sizes = ("M", "N", "C", "V", "F", "W", "CHUNK", "CHUNKS")
        types = dict.fromkeys(("q", "k", "v", "y", "dy", "dq", "dk", "dv", "x", "u"), f"*{word}")
        types |= dict.fromkeys(("state", "z", "t", "e"), "*fp32") | dict.fromkeys(sizes, "i32")
        types |= {"scale": "fp32", "eps": "fp32"}
        for (about, (kind, channels)), (name, kernel) in itertools.product(KINDS.items(), kernels.items()):
            tile, warps, stages = tile_of(name, itemsize, target)
            constants: dict[str, Any] = {**flags(kind), "BN": tile, "BC": channels, "BV": 64}
            if name == "state":
                constants |= {"WEIGHTED": True, "PRECISION": said["STATE_PRECISION"]}
            else:
                constants |= {"CAUSAL": True, "NEAR": True, "FAR": True, "BM": tile, **said}
            options = {"num_warps": warps, "num_stages": stages}
            # Triton 3.8 spills 56 bytes of dk and dv in float32 on sm_100, whatever the warps
            main = about != "wide taylor" and (name, word, target) != ("keys", "fp32", "sm_100")
            yield Configuration(
                f"{name} {about} {word}", kernel, types, constants, ("C", "V"), options,
                matrix=True, main=main, grows=GROWS, free=("t", "e"),
            )  # fmt: skip
