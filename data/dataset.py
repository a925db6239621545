"""A split as a map-style data set of dictionaries."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zoo.data.source import Source
from zoo.data.transforms import Transform, augment


class Split(Dataset):
    """Items `indices` of a source as `image` (C, H, W), `label`, `index` and, where the data have them, `concepts` and
    `caption`, a string: of several the next one in each epoch.

    augmented: vary the pictures (see `transforms.augment`, also for `flip`) by random numbers that depend on the seed,
    the epoch and the index only, whatever worker reads them. transform None: pictures as they are read.
    """

    def __init__(
        self,
        source: Source,
        indices: np.ndarray,
        *,
        transform: Transform | None,
        seed: int = 0,
        augmented: bool = False,
        flip: bool = False,
    ):
        self.source, self.indices, self.transform = source, indices, transform
        self.seed, self.augmented, self.flip = seed, augmented, flip
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Lies in shared memory, so that workers that outlive an epoch follow."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> np.ndarray:
        """(N,) classes or (N, T) targets of the split, without reading a picture."""
        return self.source.labels[self.indices]

    @property
    def concepts(self) -> np.ndarray | None:
        """(N, K) concepts of the split, without reading a picture."""
        return None if self.source.concepts is None else self.source.concepts[self.indices]

    @property
    def names(self) -> list[str]:
        """What a report calls the items: paths, or numbers."""
        return [self.source.names[index] for index in self.indices.tolist()]

    def annotations(self, index: int) -> dict[str, Any]:
        """Everything but the picture."""
        where = int(self.indices[index])
        label = self.source.labels[where]
        item: dict[str, Any] = {"label": int(label) if label.ndim == 0 else torch.from_numpy(label), "index": index}
        if self.source.concepts is not None:
            item["concepts"] = torch.from_numpy(self.source.concepts[where])
        if self.source.captions is not None:
            captions = self.source.captions[where]
            item["caption"] = captions[int(self.epoch) % len(captions)]
        return item

    def image(self, index: int) -> Tensor:
        """The picture as a model sees it."""
        picture = self.source.read(int(self.indices[index]))
        if self.transform is None:
            return picture
        picture = self.transform.crop(picture)
        if self.augmented:
            rng = np.random.default_rng([self.seed, int(self.epoch), index])
            picture = augment(picture, rng=rng, flip=self.flip)
        return self.transform.finish(picture)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a split of {len(self)}")
        return {"image": self.image(index), **self.annotations(index)}
