"""Which items a process sees, in which order: a permutation that does not depend on how many processes share it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DistributedSampler


class GlobalSampler(DistributedSampler):
    """Item `rank::world` of one permutation of the data set, drawn from `seed + epoch`.

    With `batch_size / world` items a batch in each process, batch i of a single process is the union of the processes'
    batches i. Training (`shuffle`) wraps round to the permutation's start where the processes could not share it
    evenly; evaluation neither pads nor repeats. A `torch` DistributedSampler by type, so that Lightning leaves it alone
    and tells it the epoch.
    """

    def __init__(self, dataset: Any, *, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1):
        super().__init__(dataset, num_replicas=world, rank=rank, shuffle=shuffle, seed=seed)
        self.num_samples = len(range(rank, self._total(), world))

    def _total(self) -> int:
        """Length of the permutation that is shared, after wrapping."""
        size = len(self.dataset)  # type: ignore[arg-type]
        return size + -size % self.num_replicas if self.shuffle else size

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch; the data set's augmentation follows it."""
        super().set_epoch(epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)  # type: ignore[arg-type]
        order = torch.arange(size)
        if self.shuffle:
            order = torch.randperm(size, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        shared = order[torch.arange(self._total()) % size]
        return iter(shared[self.rank :: self.num_replicas].tolist())


def evaluation_batch_size(size: int, *, per_process: int, world: int) -> int:
    """The smallest batch, at least `per_process`, with which all processes see equally many batches of `size` items.

    Processes that share `size` items without repeating any differ by one item; a process that had one batch more than
    the others would wait for them for ever.

    >>> evaluation_batch_size(65, per_process=32, world=2)
    33
    """
    share, rest = divmod(size, world)
    while rest and share and share % per_process == 0:
        per_process += 1
    return per_process
