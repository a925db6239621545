"""rANS: integers to bytes and back, at the cost their tables promise (Duda, arXiv 1311.2540).

The state stays in [2^16, 2^32) and sheds 16 bits at a time. Symbols are coded last to first, so that they decode in
order.
"""

import struct
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.models.split.entropy_tables import PRECISION, Tables

_LOW = 1 << 16
_NIBBLE = 1 << (PRECISION - 4)


def encode(symbols: Tensor, rows: Tensor, tables: Tables) -> bytes:
    """Bytes of integers `symbols` (any shape), each coded by the distribution `rows` (same shape) of the tables."""
    cdf, length, offset = (part.tolist() for part in tables)
    steps: list[tuple[int, int]] = []  # start and size of each interval, in decoding order
    for value, row in zip(symbols.reshape(-1).tolist(), rows.reshape(-1).tolist()):
        escape = length[row] - 2
        index = value - offset[row]
        known = 0 <= index < escape
        edges, at = cdf[row], index if known else escape
        steps.append((edges[at], edges[at + 1] - edges[at]))
        if not known:
            steps += [(nibble * _NIBBLE, _NIBBLE) for nibble in _nibbles(index if index < 0 else index - escape)]
    state, words = _LOW, []
    for start, size in reversed(steps):
        if state >= size << PRECISION:
            words.append(state & 0xFFFF)
            state >>= 16
        state = (state // size << PRECISION) + state % size + start
    return struct.pack(f"<I{len(words)}H", state, *reversed(words))


def decode(data: bytes, rows: Tensor, tables: Tables) -> Tensor:
    """The integers, of the shape of `rows`, that `encode` made `data` of with the same rows and tables."""
    cdf, length, offset = (part.tolist() for part in tables)
    state, *words = struct.unpack(f"<I{(len(data) - 4) // 2}H", data)
    reader = _Reader(state, words)
    values = []
    for row in rows.reshape(-1).tolist():
        edges, escape = cdf[row], length[row] - 2
        at = bisect_right(edges, reader.slot, 0, length[row]) - 1
        reader.take(edges[at], edges[at + 1] - edges[at])
        index = at
        if at == escape:
            beyond = _from_nibbles(reader)
            index = beyond if beyond < 0 else beyond + escape
        values.append(index + offset[row])
    return torch.tensor(values, dtype=torch.int32).reshape(rows.shape)


class _Reader:
    def __init__(self, state: int, words: Sequence[int]):
        self.state, self.words, self.position = state, words, 0

    @property
    def slot(self) -> int:
        return self.state & 0xFFFF

    def take(self, start: int, size: int) -> None:
        self.state = size * (self.state >> PRECISION) + self.slot - start
        if self.state < _LOW:
            if self.position >= len(self.words):
                raise ValueError("the code is cut short")
            self.state = self.state << 16 | self.words[self.position]
            self.position += 1


def _nibbles(value: int) -> list[int]:
    """How many nibbles follow, then those of the zigzag code (0, -1, 1, -2, ...), lowest first."""
    code = 2 * value if value >= 0 else -2 * value - 1
    nibbles = []
    while code:
        nibbles.append(code & 15)
        code >>= 4
    return [len(nibbles), *nibbles]


def _from_nibbles(reader: _Reader) -> int:
    digits = []
    for _ in range(_next_nibble(reader)):
        digits.append(_next_nibble(reader))
    code = sum(digit << 4 * place for place, digit in enumerate(digits))
    return -(code + 1) // 2 if code & 1 else code // 2


def _next_nibble(reader: _Reader) -> int:
    nibble = reader.slot // _NIBBLE
    reader.take(nibble * _NIBBLE, _NIBBLE)
    return nibble
