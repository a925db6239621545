"""From decoded pixels to a network's input in one pass: crop, flip, resize, normalise, transpose, cast.

x = preprocess(images, 224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # (B, 3, 224, 224)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.dispatch import exporting, runs_triton

__all__ = ["preprocess"]


def preprocess(
    images: Tensor,
    size: int | tuple[int, int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    boxes: Tensor | None = None,
    flip: Tensor | None = None,
    antialias: bool = True,
    round_uint8: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(resize(crop(images)) / 255 - mean) / std, bilinear with half-pixel centres.

    Args:
        images: uint8 (B, H, W, C), C = 1 or 3, as decoders give them.
        size: of the result, (height, width) or one number for both.
        mean, std: one number for each channel, of values in [0, 1].
        boxes: (B, 4) integers: top, left, height and width of each image's crop; None = the whole image. In a CUDA
            graph, where the host cannot look at them, a box that leaves the image is cut.
        flip: (B,) bool: mirror left and right; None = none.
        antialias: widen the filter where the image shrinks, as PIL and torchvision do.
        round_uint8: round after the resize, as PIL and torchvision do on uint8 images; differs by up to 0.5 / 255 / std
            from the exact result, and by one more step between a CPU and a GPU.
        dtype: of the result.
    Returns:
        (B, C, *size).
    Raises:
        ValueError: other types or shapes, a box that leaves the image, or boxes in an exported graph.
    """
    size = (size, size) if isinstance(size, int) else size
    _check(images, size, mean, std, boxes, flip)
    if exporting():
        if boxes is not None or flip is not None:
            raise ValueError("preprocess: boxes and flip cannot be exported; crop before the exported model")
        resized = _resize(images.permute(0, 3, 1, 2), size, antialias, round_uint8)
        return _normalise(resized, mean, std, dtype)
    return torch.ops.zoo.preprocess(
        images, boxes, flip, list(size), list(mean), list(std), antialias, round_uint8, dtype
    )


def _check(
    images: Tensor, size: tuple[int, int], mean: Sequence[float], std: Sequence[float],
    boxes: Tensor | None, flip: Tensor | None,
) -> None:  # fmt: skip
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"preprocess: images are {images.dtype} {tuple(images.shape)}, expected uint8 (B, H, W, C) with C = 1 or 3"
        )
    if min(size) < 1 or min(images.shape[1:3]) < 1:
        raise ValueError(f"preprocess: cannot resize {tuple(images.shape[1:3])} to {size}")
    if len(mean) != images.shape[3] or len(std) != images.shape[3] or min(std) <= 0:
        raise ValueError(f"preprocess: mean {mean} and std {std} must have {images.shape[3]} entries, std above 0")
    if boxes is not None and boxes.shape != (len(images), 4):
        raise ValueError(f"preprocess: boxes {tuple(boxes.shape)}, expected ({len(images)}, 4)")
    if flip is not None and (flip.shape != (len(images),) or flip.dtype != torch.bool):
        raise ValueError(f"preprocess: flip is {flip.dtype} {tuple(flip.shape)}, expected bool ({len(images)},)")


def _captures(images: Tensor) -> bool:
    """Whether a CUDA graph is recorded, in which nothing can be read of the boxes."""
    return images.is_cuda and torch.cuda.is_current_stream_capturing()


def _check_boxes(images: Tensor, boxes: Tensor) -> None:
    (height, width), (top, left, high, wide) = images.shape[1:3], boxes.unbind(1)
    outside = (top < 0) | (left < 0) | (high < 1) | (wide < 1) | (top + high > height) | (left + wide > width)
    if bool(outside.any()):
        raise ValueError(f"preprocess: a box leaves the image of {height} x {width}")


def _resize(images: Tensor, size: Sequence[int], antialias: bool, round_uint8: bool) -> Tensor:
    """images uint8 (B, C, H, W) in any layout; ATen's uint8 path rounds, the float path does not."""
    images = images if round_uint8 and not exporting() else images.float()
    if tuple(images.shape[2:]) == tuple(size):
        return images
    resized = F.interpolate(images, size=tuple(size), mode="bilinear", antialias=antialias, align_corners=False)
    return resized.round() if round_uint8 and resized.is_floating_point() else resized


def _normalise(resized: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    scale = torch.tensor([1 / (255 * s) for s in std], device=resized.device)[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std)], device=resized.device)[:, None, None]
    return torch.addcmul(shift, resized.float(), scale).to(dtype).contiguous()


def _aten(
    images: Tensor, boxes: Tensor | None, flip: Tensor | None, size: Sequence[int], mean: Sequence[float],
    std: Sequence[float], antialias: bool, round_uint8: bool, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Crops are views; what is resized stays uint8 as long as it can."""
    planes = images.permute(0, 3, 1, 2)
    if boxes is None:
        resized = _resize(planes, size, antialias, round_uint8)
    else:
        crops = (
            plane[None, :, top : top + height, left : left + width]
            for plane, (top, left, height, width) in zip(planes, boxes.tolist())
        )
        parts = [_resize(crop, size, antialias, round_uint8) for crop in crops]
        resized = torch.cat(parts) if parts else planes.new_empty(0, planes.shape[1], *size)
    if flip is not None:
        resized = torch.where(flip[:, None, None, None], resized.flip(3), resized)
    return _normalise(resized, mean, std, dtype)


@torch.library.custom_op("zoo::preprocess", mutates_args=())
def _preprocess(
    images: Tensor, boxes: Tensor | None, flip: Tensor | None, size: Sequence[int], mean: Sequence[float],
    std: Sequence[float], antialias: bool, round_uint8: bool, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    if boxes is not None and not _captures(images):
        _check_boxes(images, boxes)
    if runs_triton(images):
        from zoo.kernels.preprocess.triton import launch

        return launch(images, boxes, flip, (size[0], size[1]), [*mean], [*std], antialias, round_uint8, dtype)
    return _aten(images, boxes, flip, size, mean, std, antialias, round_uint8, dtype)


@_preprocess.register_fake
def _(images, boxes, flip, size, mean, std, antialias, round_uint8, dtype):
    return images.new_empty(images.shape[0], images.shape[3], *size, dtype=dtype)
