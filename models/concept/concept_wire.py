"""Named concepts as the bytes that cross a link: codes of their own widths, all of them or those that are not 0."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pack(code: Tensor, bits: Sequence[int]) -> bytes:
    """One image's codes (K,), each in its own number of bits, first concept first: ceil(sum bits / 8) bytes.

    >>> pack(torch.tensor([1, 2, 3], dtype=torch.uint8), [1, 2, 2]).hex()
    'd8'
    """
    stream = "".join(f"{value:0{width}b}" for value, width in zip(code.tolist(), bits))
    return _to_bytes(stream)


def unpack(data: bytes, bits: Sequence[int]) -> Tensor:
    """The codes that `pack` packed with the same bits."""
    stream, at, code = _to_bits(data), 0, []
    if len(data) != -(-sum(bits) // 8):
        raise ValueError(f"{len(data)} bytes do not hold codes of {sum(bits)} bits")
    for width in bits:
        code.append(int(stream[at : at + width], 2))
        at += width
    return torch.tensor(code, dtype=torch.uint8)


def pack_sparse(code: Tensor, bits: Sequence[int]) -> bytes:
    """Which concepts are not 0, one bit each, then the codes of those: short where few concepts are present."""
    present = [(value, width) for value, width in zip(code.tolist(), bits) if value]
    bitmap = "".join("1" if value else "0" for value in code.tolist())
    # a one-bit code that is not 0 is 1: it need not be sent
    return _to_bytes(bitmap + "".join(f"{value:0{width}b}" for value, width in present if width > 1))


def unpack_sparse(data: bytes, bits: Sequence[int]) -> Tensor:
    """The codes that `pack_sparse` packed with the same bits."""
    stream, at, code = _to_bits(data), len(bits), []
    for present, width in zip(stream, bits):
        if present == "0" or width == 1:
            code.append(int(present))
            continue
        code.append(int(stream[at : at + width] or "0", 2))
        at += width
    if -(-at // 8) != len(data) or len(code) != len(bits):
        raise ValueError(f"{len(data)} bytes do not hold sparse codes of {len(bits)} concepts")
    return torch.tensor(code, dtype=torch.uint8)


def _to_bytes(stream: str) -> bytes:
    return np.packbits(np.array([int(bit) for bit in stream], dtype=np.uint8)).tobytes()


def _to_bits(data: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in data)
