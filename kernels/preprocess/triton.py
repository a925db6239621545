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
from zoo.kernels.dispatch import FUSED, on_its_gpu


@triton.jit
def preprocess_kernel(
    images, boxes, flips, out, scale0, scale1, scale2, shift0, shift1, shift2,
    H, W, OH, OW, stride_image, stride_row,
    C: tl.constexpr, BY: tl.constexpr, BX: tl.constexpr,
    ANTIALIAS: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    """A BY x BX tile of the output, all channels, of one image. A box is cut where it leaves the image."""
    image = tl.program_id(1).to(tl.int64)
    tiles = tl.cdiv(OW, BX)
    oy = tl.program_id(0) // tiles * BY + tl.arange(0, BY)  # [BY]
    ox = tl.program_id(0) % tiles * BX + tl.arange(0, BX)  # [BX]
    top, left, height, width = 0, 0, H, W
    if boxes is not None:
        top = tl.minimum(tl.maximum(tl.load(boxes + image * 4), 0), H - 1)
        left = tl.minimum(tl.maximum(tl.load(boxes + image * 4 + 1), 0), W - 1)
        height = tl.minimum(tl.maximum(tl.load(boxes + image * 4 + 2), 1), H - top)
        width = tl.minimum(tl.maximum(tl.load(boxes + image * 4 + 3), 1), W - left)
    source = ox
    if flips is not None:
        source = tl.where(tl.load(flips + image) != 0, OW - 1 - ox, ox)
    # `/` is off by a last digit, also where both are equal and nothing is to be resized
    step_y = tl.div_rn(tl.cast(height, tl.float32), tl.cast(OH, tl.float32))
    step_x = tl.div_rn(tl.cast(width, tl.float32), tl.cast(OW, tl.float32))
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
        total, scale, shift = red, scale0, shift0
        if channel == 1:
            total, scale, shift = green, scale1, shift1
        if channel == 2:
            total, scale, shift = blue, scale2, shift2
        value = total / weights
        if ROUND:
            value = tl.floor(value + 0.5)
        value = value * scale + shift
        tl.store(to + channel * OH * OW, value.to(out.dtype.element_ty), mask=inside_out)


TILE = (4, 64, 4)
"""Rows and columns of the output, warps."""
NUMBERS = ("scale0", "scale1", "scale2", "shift0", "shift1", "shift2")
"""1 / (255 std) and -mean / std of each channel: as arguments, which a CUDA graph keeps, not in memory to be copied."""


@on_its_gpu
def launch(
    images: Tensor, boxes: Tensor | None, flips: Tensor | None, size: tuple[int, int], mean: list[float],
    std: list[float], antialias: bool, round_uint8: bool, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """images uint8 (B, H, W, C), boxes (B, 4), flips (B,) bool -> (B, C, *size)."""
    images = images.contiguous()
    batch, height, width, channels = images.shape
    out = torch.empty(batch, channels, *size, dtype=dtype, device=images.device)
    if out.numel():
        by, bx, warps = TILE
        numbers = [*(1 / (255 * s) for s in std), *(0.0,) * (3 - channels)]
        numbers += [*(-m / s for m, s in zip(mean, std)), *(0.0,) * (3 - channels)]
        preprocess_kernel[(triton.cdiv(size[0], by) * triton.cdiv(size[1], bx), batch)](
            images, None if boxes is None else boxes.to(torch.int32).contiguous(),
            None if flips is None else flips.to(torch.uint8), out, *numbers,
            height, width, *size, images.stride(0), images.stride(1), C=channels, BY=by, BX=bx, ANTIALIAS=antialias,
            ROUND=round_uint8, num_warps=warps, **FUSED,
        )  # fmt: skip
    return out


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """Every configuration that `launch` can choose ("bf16" stands for fp16 too), with boxes and flips."""
    types = {"images": "*u8", "boxes": "*i32", "flips": "*u8"} | dict.fromkeys(NUMBERS, "fp32")
    types |= dict.fromkeys(("H", "W", "OH", "OW", "stride_image", "stride_row"), "i32")
    by, bx, warps = TILE
    flags = itertools.product(("bf16", "fp32"), (1, 3), (True, False), (True, False))
    for word, channels, antialias, rounded in flags:
        constants = {"C": channels, "BY": by, "BX": bx, "ANTIALIAS": antialias, "ROUND": rounded}
        said = [text for text, on in (("antialias", antialias), ("rounded", rounded)) if on]
        name = ", ".join([f"{channels} channels to {word}", *said])
        all_types, options = types | {"out": f"*{word}"}, {"num_warps": warps}
        yield Configuration(name, preprocess_kernel, all_types, constants, (), options, grows=("boxes", "flips"))
