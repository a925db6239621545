"""Crop, resize and normalise an image batch, as two small matrices for each image.

    y[c] = (R_vertical x[c] R_horizontal^T / 255 - mean_c) / std_c

R is (out, in): output o looks at position p = (o + 1/2) s - 1/2 of the crop, s = size of the crop / out, and weighs its
pixels i by max(0, 1 - |i - p| / support), normalised within the crop; support = max(1, s) with antialiasing, else 1.
"""

import torch
from torch import Tensor


def resampling(start: int, length: int, whole: int, out: int, *, antialias: bool, dtype: torch.dtype) -> Tensor:
    """R (out, whole): how the crop [start, start + length) of an axis of `whole` pixels becomes `out` pixels."""
    scale = length / out
    support = max(1.0, scale) if antialias else 1.0
    position = (torch.arange(out, dtype=dtype) + 0.5) * scale - 0.5
    weight = (1 - (torch.arange(length, dtype=dtype) - position[:, None]).abs() / support).clamp(min=0)
    matrix = torch.zeros(out, whole, dtype=dtype)
    matrix[:, start : start + length] = weight / weight.sum(1, keepdim=True)
    return matrix


def preprocess(
    images: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    mean: Tensor,
    std: Tensor,
    *,
    antialias: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """images uint8 (B, H, W, C), boxes (B, 4) of top, left, height, width -> (B, C, *size)."""
    done = []
    for image, (top, left, height, width) in zip(images, boxes.tolist()):
        vertical = resampling(top, height, images.shape[1], size[0], antialias=antialias, dtype=dtype)
        horizontal = resampling(left, width, images.shape[2], size[1], antialias=antialias, dtype=dtype)
        done.append(vertical @ image.permute(2, 0, 1).to(dtype) @ horizontal.t())
    mean, std = mean.to(dtype)[:, None, None], std.to(dtype)[:, None, None]
    return (torch.stack(done) / 255 - mean) / std
