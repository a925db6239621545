"""The configurations that the launchers of the linear-attention kernels can choose, to be compiled ahead of time."""

import itertools
from collections.abc import Iterator

from zoo.kernels.aot import Configuration
from zoo.kernels.linear.launch import flags, tile_of
from zoo.kernels.linear.reference import Kind
from zoo.kernels.linear.triton import forward_kernel, keys_kernel, queries_kernel, state_kernel


def configurations(target: str = "sm_90") -> Iterator[Configuration]:
    """Every kernel, with near and far keys, for SLAB's heads (64 channels) and BASED's (16 channels, 64 values)."""
    kinds: tuple[tuple[Kind, int, int], ...] = (("relu", 64, 64), ("taylor", 16, 64))
    kernels = {"forward": forward_kernel, "queries": queries_kernel, "keys": keys_kernel, "state": state_kernel}
    amd = target.startswith("gfx")
    for word, itemsize in (("fp32", 4), ("bf16", 2)):
        usual = "ieee" if amd else "tf32x3"
        state_precision = "tf32" if word == "bf16" and not amd else usual
        sizes = ("M", "N", "C", "V", "F", "W", "CHUNK", "CHUNKS")
        types = dict.fromkeys(("q", "k", "v", "y", "dy", "dq", "dk", "dv", "x", "u"), f"*{word}")
        types |= dict.fromkeys(("state", "z", "t", "e"), "*fp32") | dict.fromkeys(sizes, "i32")
        types |= {"scale": "fp32", "eps": "fp32"}
        for (kind, channels, values), (name, kernel) in itertools.product(kinds, kernels.items()):
            tile, warps, stages = tile_of(name, itemsize, target)
            constants = {**flags(kind), "BN": tile, "BC": channels, "BV": values}
            if name == "state":
                constants |= {"WEIGHTED": True, "PRECISION": state_precision}
            else:
                constants |= {"CAUSAL": True, "NEAR": True, "FAR": True, "BM": tile}
                constants |= {"PRECISION": usual, "STATE_PRECISION": state_precision}
            options = {"num_warps": warps, "num_stages": stages}
            yield Configuration(f"{name} {kind} {word}", kernel, types, constants, ("C", "V"), options)
