"""What crosses the link, in bytes: codes packed to their bits, an entropy coder on top, and the JPEG they compete with.

One image's message is a header (scale and zero point as two float32) and its codes.
"""

import io
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HEADER_BYTES = 8


def pack(code: Tensor, num_bits: int = 8) -> bytes:
    """The codes of one image (any shape, uint8 below 2^num_bits) as ceil(numel * num_bits / 8) bytes, first code first.

    >>> pack(torch.tensor([1, 2, 3], dtype=torch.uint8), num_bits=2).hex()
    '6c'
    """
    values = code.detach().cpu().numpy().reshape(-1, 1)
    return np.packbits(np.unpackbits(values, axis=1)[:, 8 - num_bits :]).tobytes()


def unpack(data: bytes, shape: Sequence[int], num_bits: int = 8) -> Tensor:
    """The codes that `pack` packed, of the given shape."""
    numel = int(np.prod(shape))
    if len(data) != -(-numel * num_bits // 8):
        raise ValueError(f"{len(data)} bytes do not hold {numel} codes of {num_bits} bits")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=numel * num_bits).reshape(numel, num_bits)
    wide = np.pad(bits, ((0, 0), (8 - num_bits, 0)))
    return torch.from_numpy(np.packbits(wide, axis=1).reshape(tuple(shape)))


def code_bytes(code: Tensor, num_bits: int = 8) -> dict[str, Tensor]:
    """Bytes (B,) of each image's message, header included: `tensor` packed, `zlib` deflated where that is smaller."""
    packed = [pack(each, num_bits) for each in code]
    sizes = {
        "tensor": [len(data) for data in packed],
        "zlib": [min(len(data), len(zlib.compress(data, 9))) for data in packed],
    }
    return {name: torch.tensor(values) + HEADER_BYTES for name, values in sizes.items()}


def jpeg_bytes(image: Tensor, quality: int = 95) -> int:
    """Size of the file that JPEG makes of a uint8 image (C, H, W) of one or three channels, at Pillow's settings."""
    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"JPEG takes a uint8 image (1 or 3, H, W), got {image.dtype} {tuple(image.shape)}")
    pixels = image.cpu().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if image.shape[0] == 1 else pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.getbuffer().nbytes


def compression(
    image: Tensor, code: Tensor, *, num_bits: int = 8, qualities: Sequence[int] = (95, 75, 50)
) -> dict[str, float]:
    """One image's message in bytes, and the share of bytes it saves against each way of sending the image itself.

    image: uint8 (C, H, W). code: uint8 (b, h, w). Keys `bytes`, `bytes_zlib`, the reference sizes `raw_bytes`,
    `jpeg<quality>_bytes` and `float32_bytes` (the code unquantised), and `saved_<reference>` = 1 - bytes / reference.
    """
    sent = code_bytes(code[None], num_bits)
    references = {"raw": image.numel(), "float32": 4 * code.numel()}
    references |= {f"jpeg{quality}": jpeg_bytes(image, quality) for quality in qualities}
    size = int(sent["tensor"])
    report: dict[str, float] = {"bytes": size, "bytes_zlib": int(sent["zlib"])}
    report |= {f"{name}_bytes": value for name, value in references.items()}
    return report | {f"saved_{name}": 1 - size / value for name, value in references.items()}
