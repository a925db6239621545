"""From an image file or picture to the tensor a model sees: decode upright as uint8, resize, crop, scale, normalise.

Training, evaluation and prediction all go through `load_image` and `Transform`, so their pixels are the same.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from zoo.data.contract import Preprocessing
from zoo.data.errors import ImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
"""What counts as an image file in a folder or an archive."""

INTERPOLATIONS = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest-exact"}
"""Our names -> torchvision's."""


def load_image(path: str | Path) -> Tensor:
    """Decode an image file, upright by its EXIF flag, to uint8 (C, H, W): C is 1 for grey and 3 for everything else.

    Raises:
        ImageError: the file is missing, truncated or not an image; the message names the path.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); give the path of an image file") from None
    return decode_image(content, name=str(path))


def is_image(path: str | Path) -> bool:
    """Whether the first bytes of a file are those of an image; the rest may be damaged."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path):
            return True
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        return False


def decode_image(content: bytes, *, name: str, advice: str = "give another file") -> Tensor:
    """`load_image` for bytes in memory; an error calls them `name` and ends with the advice."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content))
            if image.format == "JPEG" and image.mode in ("L", "RGB"):
                return _decode_jpeg(content)
            return to_uint8(image)
    except Image.DecompressionBombError as error:
        what = f"is too large ({error})"
    except UnidentifiedImageError:
        what = "is empty" if not content else "is not an image"
    except (OSError, RuntimeError, SyntaxError, ValueError, EOFError) as error:
        what = f"is damaged ({str(error).splitlines()[0]})"
    raise ImageError(f"{name}: {what}; {advice}") from None


def _decode_jpeg(content: bytes) -> Tensor:
    from torchvision.io import decode_jpeg

    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return decode_jpeg(data, apply_exif_orientation=True)


def to_uint8(image: Any) -> Tensor:
    """A PIL image, a uint8 array (H, W[, C]) or a uint8 tensor ([C,] H, W) as uint8 tensor (C, H, W), C 1 or 3.

    Palettes and CMYK become RGB, transparency becomes white, 16-bit grey keeps its upper byte.

    Raises:
        ValueError: another dtype or shape.
    """
    if isinstance(image, Image.Image):
        return _from_array(np.array(_plain(ImageOps.exif_transpose(image))))
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if image.dtype != torch.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"expected a uint8 image (C, H, W), got {image.dtype} {tuple(image.shape)}")
    return image[None] if image.ndim == 2 else image


def _plain(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 256).clip(0, 255).astype(np.uint8))
    if image.mode in ("1", "LA", "La") and "transparency" not in image.info:
        return image.convert("L")
    if image.mode in ("RGBA", "RGBa", "PA", "P") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Tensor:
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(f"expected a uint8 image (H, W, C), got {array.dtype} {array.shape}")
    array = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


class Transform:
    """A `Preprocessing` as a function of one image: PIL, uint8 array or uint8 tensor in, float32 (C, H, W) out.

    >>> half = Preprocessing(image_size=(4, 4), mean=(0.5,), std=(0.5,))
    >>> Transform(half)(np.full((8, 6), 255, dtype=np.uint8)).unique().tolist()
    [1.0]
    """

    def __init__(self, preprocessing: Preprocessing):
        self.preprocessing = preprocessing
        self.mean = torch.tensor(preprocessing.mean).view(-1, 1, 1)
        self.std = torch.tensor(preprocessing.std).view(-1, 1, 1)

    def __call__(self, image: Any) -> Tensor:
        return self.finish(self.crop(image))

    def crop(self, image: Any) -> Tensor:
        """Resize and centre-crop: uint8 (C, H, W) of the wanted size and channels."""
        image = set_channels(to_uint8(image), self.preprocessing.channels)
        return resize_and_crop(image, self.preprocessing)

    def finish(self, image: Tensor) -> Tensor:
        """Scale uint8 (C, H, W) to [0, 1] and normalise."""
        return image.to(torch.float32).div_(255).sub_(self.mean).div_(self.std)


def set_channels(image: Tensor, channels: int) -> Tensor:
    """uint8 (C, H, W) with 1 or 3 channels: colour to grey by ITU-R 601 luma, grey to colour by repetition."""
    if image.shape[0] == channels:
        return image
    if image.shape[0] == 1:
        return image.expand(channels, -1, -1)
    if image.shape[0] == 3 and channels == 1:
        from torchvision.transforms.v2.functional import rgb_to_grayscale

        return rgb_to_grayscale(image)
    raise ValueError(f"an image of {image.shape[0]} channels cannot become one of {channels}: give mean and std for it")


def resize_and_crop(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Resize so that the crop keeps `crop_pct` of the shorter side, and take the centre; uint8, with antialiasing."""
    height, width = preprocessing.image_size
    old_height, old_width = image.shape[-2:]
    full_height, full_width = int(height / preprocessing.crop_pct), int(width / preprocessing.crop_pct)
    scale = max(full_height / old_height, full_width / old_width)
    size = [max(full_height, int(old_height * scale)), max(full_width, int(old_width * scale))]
    if size != [old_height, old_width]:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        mode = InterpolationMode(INTERPOLATIONS[preprocessing.interpolation])
        image = resize(image, size, interpolation=mode, antialias=True)
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    return image[:, top : top + height, left : left + width]


def augment(image: Tensor, *, rng: np.random.Generator, flip: bool) -> Tensor:
    """Shift uint8 (C, H, W) by up to an eighth of its size, repeating the border; if `flip`, mirror half of them."""
    height, width = image.shape[-2:]
    rows, columns = max(1, height // 8), max(1, width // 8)
    down, right = int(rng.integers(-rows, rows + 1)), int(rng.integers(-columns, columns + 1))
    y = (torch.arange(height) - down).clamp_(0, height - 1)
    x = (torch.arange(width) - right).clamp_(0, width - 1)
    if flip and rng.random() < 0.5:
        x = x.flip(0)
    return image[:, y[:, None], x[None, :]]
