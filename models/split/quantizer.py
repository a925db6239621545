"""The link's affine quantiser: real tensors to integers of `num_bits` bits and back.

    z (B, ...) --quantize--> Message(code, scale, zero_point) --dequantize--> scale * (code - zero_point)

`quantize_tensor` is the form that BottleFit (arXiv 2201.02693) releases: one range for the whole batch, and a zero
point that is truncated and clamped into the code's range, so that a tensor whose values do not straddle zero
saturates. `quantize` is the zoo's default: one range for each image, so that an answer never depends on its batch, and
a real zero point, so that no tensor saturates and the error is at most half a step.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn


class Message(NamedTuple):
    """What crosses the link: `code` (B, ...) uint8, `scale` and `zero_point` (B,), or (1,) for a whole batch."""

    code: Tensor
    scale: Tensor
    zero_point: Tensor


def quantize(z: Tensor, *, num_bits: int = 8) -> Message:
    """Codes of z (B, ...) with one range for each image: code = round((z - min) / scale), scale = range / (2^bits - 1).

    A constant image decodes exactly. Rounding is half to even.
    """
    flat = z.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    constant = torch.where(low == 0, torch.ones_like(low), low.abs())
    scale = torch.where(high > low, (high - low) / (2**num_bits - 1), constant)
    code = torch.round((z - _per_image(low, z)) / _per_image(scale, z)).clamp(0, 2**num_bits - 1)
    return Message(code.to(torch.uint8), scale, -low / scale)


def quantize_tensor(z: Tensor, *, num_bits: int = 8) -> Message:
    """The released form: code = round(clamp(zp + z / scale)), zp = trunc(clamp(-min / scale, 0, 2^bits - 1)).

    One range for the whole tensor, as shape (1,). 16 bits stand for a cast to half precision, with scale 1.
    """
    if num_bits == 16:
        return Message(z.half(), z.new_ones(1), z.new_zeros(1))
    top = 2**num_bits - 1
    low, high = z.amin(), z.amax()
    scale = (high - low) / top
    zero_point = (-low / scale).clamp(0, top).trunc()
    code = (zero_point + z / scale).clamp(0, top).round().to(torch.uint8)
    return Message(code, scale.reshape(1), zero_point.reshape(1))


def dequantize(code: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """scale * (code - zero_point), of code's shape, in scale's precision."""
    return _per_image(scale, code) * (code.to(scale.dtype) - _per_image(zero_point, code))


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))


class AffineQuantizer(nn.Module):
    """The quantiser of a link: `forward` encodes, `dequantize` decodes.

    per: "image" is `quantize`, "batch" the released `quantize_tensor`.
    """

    def __init__(self, *, num_bits: int = 8, per: Literal["image", "batch"] = "image"):
        super().__init__()
        if not 1 <= num_bits <= 8:
            raise ValueError(f"num_bits is {num_bits}: a code has 1 to 8 bits")
        if per not in ("image", "batch"):
            raise ValueError(f"quantiser range per {per!r}: choose 'image' or 'batch'")
        self.num_bits, self.per = num_bits, per

    def forward(self, z: Tensor) -> Message:
        """z (B, ...) real, to a `Message`."""
        return (quantize if self.per == "image" else quantize_tensor)(z, num_bits=self.num_bits)

    def dequantize(self, code: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        """The reals that the receiver decodes."""
        return dequantize(code, scale, zero_point)

    def straight_through(self, z: Tensor) -> Tensor:
        """The decoded value of z, with the gradient of the identity."""
        return z + (self.dequantize(*self(z)) - z).detach()

    def extra_repr(self) -> str:
        return f"num_bits={self.num_bits}, per={self.per!r}"
