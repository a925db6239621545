"""Deterministic stratified splits: the same on every machine and with every version of every library."""

import hashlib
from collections.abc import Sequence

import numpy as np


def stratified_split(
    names: Sequence[str], *, strata: np.ndarray | None, fractions: Sequence[float], seed: int
) -> list[np.ndarray]:
    """Cut items into `len(fractions) + 1` parts: the rest first, then one part for each fraction, indices ascending.

    Within each stratum (class) items are ordered by a hash of the seed and their name, and each part takes its share,
    rounded, at least one where the stratum has more items than parts. strata None: one stratum.
    """
    strata = np.zeros(len(names), dtype=np.int64) if strata is None else strata
    hashes = [_hash(name, seed) for name in names]
    parts: list[list[int]] = [[] for _ in range(len(fractions) + 1)]
    members: dict[int, list[int]] = {}
    for index, stratum in enumerate(strata.tolist()):
        members.setdefault(stratum, []).append(index)
    for stratum in sorted(members):
        ordered = sorted(members[stratum], key=lambda index: (hashes[index], index))
        start, size = 0, len(ordered)
        for part, fraction in enumerate(fractions, 1):
            take = round(size * fraction)
            if fraction and size > len(fractions):
                take = max(take, 1)
            parts[part] += ordered[start : start + take]
            start += take
        parts[0] += ordered[start:]
    return [np.array(sorted(part), dtype=np.int64) for part in parts]


def few_of_each(names: Sequence[str], labels: np.ndarray, indices: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """The first `count` of `indices` in each class by the same order of hashes, ascending; all where there are fewer.

    >>> few_of_each("abcd", np.array([0, 0, 1, 1]), np.array([0, 2, 3]), count=1, seed=0)
    array([0, 2])
    """
    ordered = sorted(indices.tolist(), key=lambda index: (_hash(names[index], seed), index))
    members: dict[int, list[int]] = {}
    for index in ordered:
        members.setdefault(int(labels[index]), []).append(index)
    return np.array(sorted(index for found in members.values() for index in found[:count]), dtype=np.int64)


def _hash(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
