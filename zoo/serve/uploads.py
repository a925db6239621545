"""What somebody drops on the page, checked before anything is decoded: size, kind, pixels."""

import base64
import io
import warnings

from PIL import Image, UnidentifiedImageError
from torch import Tensor

from zoo.data.errors import ImageError
from zoo.data.transforms import decode_image

MAX_BYTES = 20 * 1000**2
MAX_PIXELS = 50 * 1000**2
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SHOWN = 480
"""Longer side of a picture as the page shows it, in pixels."""


def read_upload(name: str, content: bytes) -> Tensor:
    """The picture as uint8 (C, H, W); only its header is read until its size in pixels is known to be harmless.

    Raises:
        ImageError: too many bytes or pixels, or no picture; one line for the person who dropped it.
    """
    if len(content) > MAX_BYTES:
        raise ImageError(f"{name}: {len(content) / 1e6:.0f} MB, and the limit is {MAX_BYTES / 1e6:.0f} MB: shrink it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        too_large = isinstance(error, Image.DecompressionBombError)
        what = "has far too many pixels" if too_large else f"is not a picture ({', '.join(FORMATS)})"
        raise ImageError(f"{name} {what}: drop another file") from None
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width} x {height} pixels, and the limit is {MAX_PIXELS // 10**6} million: shrink it"
        )
    return decode_image(content, name=name, advice="drop another file")


def data_url(picture: Tensor) -> str:
    """A uint8 picture (C, H, W) as the source of an <img>, made smaller where it is larger than the page shows."""
    array = picture.permute(1, 2, 0).numpy()
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    image.thumbnail((SHOWN, SHOWN))
    text = io.BytesIO()
    image.save(text, format="PNG")
    return "data:image/png;base64," + base64.b64encode(text.getvalue()).decode()
