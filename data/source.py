"""Where items come from, before any split or transform."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.transforms import to_uint8


class Source:
    """Labels, names and concepts of all items at once, pictures one at a time.

    labels: (N,) int64 classes, or (N, T) float32 targets. names: (N,) what an error or a report calls an item.
    concepts: (N, K) float32 in [0, 1], or None. captions: (N,) sentences about each item, or None.
    """

    labels: np.ndarray
    names: Sequence[str]
    concepts: np.ndarray | None = None
    captions: Sequence[Sequence[str]] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Any:
        """The item's picture: uint8 tensor (C, H, W)."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Changes whenever a picture may have changed."""
        raise NotImplementedError


class ArraySource(Source):
    """Pictures that lie in one array: uint8 (N, H, W) or (N, H, W, C)."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        concepts: np.ndarray | None = None,
        names: Sequence[str] | None = None,
        captions: Sequence[Sequence[str]] | None = None,
    ):
        self.images, self.labels, self.concepts = images, labels.astype(np.int64), concepts
        self.captions = captions
        self.names = names if names is not None else [str(index) for index in range(len(images))]

    def read(self, index: int) -> Any:
        return to_uint8(self.images[index])

    def fingerprint(self) -> str:
        header = f"{self.images.dtype}{self.images.shape}".encode()
        return hashlib.blake2b(header + np.ascontiguousarray(self.images).tobytes(), digest_size=16).hexdigest()
