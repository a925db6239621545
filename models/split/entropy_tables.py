"""Integer tables that sender and receiver share: cumulative counts out of 2^16 for every symbol of every distribution.

Both sides must hold these integers, not the probabilities they came from: two machines rarely round alike.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PRECISION = 16
TOTAL = 1 << PRECISION


class Tables(NamedTuple):
    """cdf (K, L) int32, rows padded with zeros; length (K,) of each row; offset (K,): the value of each first symbol.

    The last symbol of a row is the escape, for values outside the table.
    """

    cdf: Tensor
    length: Tensor
    offset: Tensor


def tables(pmf: Tensor, tail: Tensor, length: Tensor, offset: Tensor) -> Tables:
    """Tables of K distributions over integers: pmf (K, L), of which the first `length` count, and tail masses (K,)."""
    cdf = torch.zeros(len(pmf), int(length.max()) + 2, dtype=torch.int32)
    for row, (probabilities, mass, symbols) in enumerate(zip(pmf.cpu().numpy(), tail.cpu().numpy(), length.tolist())):
        counts = cumulative_counts(np.append(probabilities[:symbols], mass))
        cdf[row, : len(counts)] = torch.from_numpy(counts)
    return Tables(cdf, (length + 2).int().cpu(), offset.int().cpu())


def cumulative_counts(pmf: np.ndarray) -> np.ndarray:
    """0 .. 2^16 in steps of at least one, in proportion to `pmf`.

    Counts are rounded, rescaled by integer division, and a symbol left without a count takes one from the rarest
    symbol that has two.

    >>> cumulative_counts(np.array([0.5, 0.0, 0.5])).tolist()
    [0, 32767, 32768, 65536]
    """
    counts = np.floor(pmf.astype(np.float64) * TOTAL + 0.5).astype(np.int64)
    counts = TOTAL * counts // counts.sum()
    counts[-1] += TOTAL - counts.sum()
    if len(counts) > TOTAL:
        raise ValueError(
            f"a table of {len(counts)} symbols does not fit {PRECISION} bits: the latent's range is too wide"
        )
    for empty in np.flatnonzero(counts == 0):
        counts[np.where(counts > 1, counts, TOTAL + 1).argmin()] -= 1
        counts[empty] = 1
    return np.append(0, counts.cumsum())
