"""Crop, flip, resize, scale, normalise, transpose and cast in one pass over the pixels (the idea of the Fused Kernel
Library, Amoros et al. 2025, arXiv 2508.07071): an output pixel decides what is read.

Bytes moved: the crops once in uint8, the result once; a chain of calls reads and writes float32 at every step.
"""

import itertools
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.kernels.aot import Configuration
from zoo.kernels.dispatch import on_its_gpu


@triton.jit
def preprocess_kernel(
    images, boxes, flips, scales, shifts, out, H, W, OH, OW, stride_image, stride_row,
    C: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
    ANTIALIAS: tl.constexpr, ROUND: tl.constexpr, FLIP: tl.constexpr,
):  # fmt: skip
    """A BY x BX tile of the output, all channels, of one image."""
    image = tl.program_id(1).to(tl.int64)
    tiles = tl.cdiv(OW, BX)
    oy = tl.program_id(0) // tiles * BY + tl.arange(0, BY)  # [BY]
    ox = tl.program_id(0) % tiles * BX + tl.arange(0, BX)  # [BX]
    top, left = tl.load(boxes + image * 4), tl.load(boxes + image * 4 + 1)
    height, width = tl.load(boxes + image * 4 + 2), tl.load(boxes + image * 4 + 3)
    source = ox
    if FLIP:
        source = tl.where(tl.load(flips + image) != 0, OW - 1 - ox, ox)
    # `/` is off by a last digit, also where both are equal and nothing is to be resized
    step_y = tl.div_rn(height.to(tl.float32), tl.cast(OH, tl.float32))
    step_x = tl.div_rn(width.to(tl.float32), tl.cast(OW, tl.float32))
    support_y = tl.maximum(step_y, 1.0) if ANTIALIAS else 1.0 + 0 * step_y
    support_x = tl.maximum(step_x, 1.0) if ANTIALIAS else 1.0 + 0 * step_x
    py = (oy.to(tl.float32) + 0.5) * step_y - 0.5
    px = (source.to(tl.float32) + 0.5) * step_x - 0.5
    first_y = tl.floor(py - support_y).to(tl.int32) + 1
    first_x = tl.floor(px - support_x).to(tl.int32) + 1
    pixels = images + image * stride_image + top * stride_row + left * C
    inside_out = (oy[:, None] < OH) & (ox[None, :] < OW)
    weights = tl.zeros((BY, BX), tl.float32)
    red = tl.zeros((BY, BX), tl.float32)
    green = tl.zeros((BY, BX), tl.float32)
    blue = tl.zeros((BY, BX), tl.float32)
    for tap_y in range(0, (2 * support_y).to(tl.int32) + 1):
        y = first_y + tap_y
        wy = tl.where((y >= 0) & (y < height), tl.maximum(1 - tl.abs(y.to(tl.float32) - py) / support_y, 0.0), 0.0)
        for tap_x in range(0, (2 * support_x).to(tl.int32) + 1):
            x = first_x + tap_x
            wx = tl.where((x >= 0) & (x < width), tl.maximum(1 - tl.abs(x.to(tl.float32) - px) / support_x, 0.0), 0.0)
            weight = wy[:, None] * wx[None, :]
            wanted = inside_out & (weight > 0)
            at = pixels + y[:, None] * stride_row + x[None, :] * C
            weights += weight
            red += weight * tl.load(at, mask=wanted, other=0).to(tl.float32)
            if C == 3:
                green += weight * tl.load(at + 1, mask=wanted, other=0).to(tl.float32)
                blue += weight * tl.load(at + 2, mask=wanted, other=0).to(tl.float32)
    to = out + image * C * OH * OW + oy[:, None] * OW + ox[None, :]
    for channel in tl.static_range(C):
        total = red
        if channel == 1:
            total = green
        if channel == 2:
            total = blue
        value = total / weights
        if ROUND:
            value = tl.floor(value + 0.5)
        value = value * tl.load(scales + channel) + tl.load(shifts + channel)
        tl.store(to + channel * OH * OW, value.to(out.dtype.element_ty), mask=inside_out)


TILE = (4, 64, 4)
"""Rows and columns of the output, warps."""


@on_its_gpu
def launch(
    images: Tensor, boxes: Tensor, flips: Tensor | None, size: tuple[int, int], mean: list[float], std: list[float],
    antialias: bool, round_uint8: bool, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """images uint8 (B, H, W, C), boxes (B, 4), flips (B,) bool -> (B, C, *size)."""
    images = images.contiguous()
    batch, height, width, channels = images.shape
    out = torch.empty(batch, channels, *size, dtype=dtype, device=images.device)
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std)], device=images.device)
    if out.numel():
        by, bx, warps = TILE
        preprocess_kernel[(triton.cdiv(size[0], by) * triton.cdiv(size[1], bx), batch)](
            images, boxes.to(torch.int32).contiguous(), images if flips is None else flips.to(torch.uint8), scale,
            shift, out, height, width, *size, images.stride(0), images.stride(1), C=channels, BY=by, BX=bx,
            ANTIALIAS=antialias, ROUND=round_uint8, FLIP=flips is not None, num_warps=warps,
        )  # fmt: skip
    return out


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """Every configuration that `launch` can choose ("bf16" stands for fp16 too)."""
    types = {"images": "*u8", "boxes": "*i32", "flips": "*u8", "scales": "*fp32", "shifts": "*fp32"}
    types |= dict.fromkeys(("H", "W", "OH", "OW", "stride_image", "stride_row"), "i32")
    by, bx, warps = TILE
    flags = itertools.product(("bf16", "fp32"), (1, 3), (True, False), (True, False), (True, False))
    for word, channels, antialias, rounded, flip in flags:
        constants = {"C": channels, "BY": by, "BX": bx, "ANTIALIAS": antialias, "ROUND": rounded, "FLIP": flip}
        said = [text for text, on in (("antialias", antialias), ("rounded", rounded), ("flips", flip)) if on]
        name = ", ".join([f"{channels} channels to {word}", *said])
        all_types = types | {"out": f"*{word}"}
        yield Configuration(name, preprocess_kernel, all_types, constants, (), {"num_warps": warps})
