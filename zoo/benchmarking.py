"""Times and memory of functions that are compared with each other: measured in turns, so that what slows the machine
down for a while slows all of them."""

import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def interleaved(
    functions: dict[str, Callable[[], Any]], *, rounds: int = 30, budget_s: float = 5.0, device: str = "cpu"
) -> dict[str, list[float]]:
    """Milliseconds of each call: every function once a round, in turns that shift by one each round.

    The rounds end at `rounds` or when `budget_s` seconds are over, but not before three; one call of each to warm up.
    """
    names = list(functions)
    for name in names:
        functions[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    for turn in range(rounds):
        if turn >= 3 and time.perf_counter() - begin > budget_s:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            _wait(device)
            start = time.perf_counter()
            functions[name]()
            _wait(device)
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def quantiles(times: Sequence[float]) -> tuple[float, float, float]:
    """The 20 %, 50 % and 80 % quantiles.

    >>> quantiles([5.0, 1.0, 4.0, 2.0, 3.0])
    (1.8, 3.0, 4.2)
    """
    if len(times) < 2:
        return (times[0],) * 3
    cuts = statistics.quantiles(times, n=10, method="inclusive")
    return tuple(round(cut, 6) for cut in (cuts[1], cuts[4], cuts[7]))  # type: ignore[return-value]


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.seen: set[int] = set()
        self.given: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = (storage._cdata for storage in _storages((args, kwargs)))
        self.given |= {key for key in taken if key not in self.seen}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._count(storage)
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen or key in self.given:
            return
        self.seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


def _storages(values: Any) -> list[Any]:
    return [each.untyped_storage() for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


def peak_bytes(function: Callable[[], Any], *, device: str = "cpu") -> int:
    """The most bytes that the tensors made by a call hold at a time (on a processor, without the workspaces of its
    libraries); weights and input are not counted."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    with _Live() as counter:
        function()
    return counter.peak
