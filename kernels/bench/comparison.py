"""One comparison: an operation, what a user would call instead, and the row that timing them gives."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.kernels.dispatch import runs_triton
from zoo.kernels.floors import DEVICES, Cost, cost
from zoo.kernels.measured import kernels_always

Call = Callable[[], Any]


@dataclass(frozen=True)
class Comparison:
    """`calls[op]` is ours, the others compute the same. `shapes` are for the cost model (None: it has no formula).
    kernel: whether the operation has a kernel for this case at all."""

    op: str
    case: str
    calls: Mapping[str, Call]
    probe: Tensor
    shapes: Mapping[str, int] | None = None
    kernel: bool = True


@dataclass(frozen=True)
class Row:
    """What one comparison measured.

    times: milliseconds by name, the median, ours under the operation's own name; spread: ours, its 20 % and 80 %
    quantiles. ratio: the fastest other over ours (above 1 = ours is faster), the median of the turns. path: what the
    dispatcher picked. tflops, gbps: ours, from the FLOPs and the byte floor of the cost model. floor: share of the time
    floor that we reach (None where the device is not in `cost.DEVICES`). copy: our bytes a second as a share of those
    of a plain copy, measured in the same run. memory: megabytes by name that a call takes at its peak (GPU only).
    left_out: other calls that do not run here, and why. shapes: the comparison's.
    """

    op: str
    case: str
    device: str
    dtype: str
    path: str
    times: Mapping[str, float]
    spread: tuple[float, float]
    ratio: float
    tflops: float | None = None
    gbps: float | None = None
    floor: float | None = None
    copy: float | None = None
    memory: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Ours on one line, the others on the next."""
        words = [f"{self.op:16s} {self.case:50s} {self.path:6s} {self.ratio:5.2f}x  {self._time(self.op)}"]
        if self.tflops is not None and self.gbps is not None:
            words.append(f"{self.tflops:.3g} TFLOP/s  {self.gbps:.3g} GB/s")
        shares = {"the floor": self.floor, "a copy": self.copy}
        words += [f"{share:.0%} of {name}" for name, share in shares.items() if share]
        others = [f"{name} {self._time(name)}" for name in self.times if name != self.op]
        others += [f"without {name}: {why}" for name, why in self.left_out.items()]
        return "  ".join(words) + "\n    " + "   ".join(others)

    def _time(self, name: str) -> str:
        return f"{self.times[name]:.3f} ms" + (f", {self.memory[name]:.0f} MB" if name in self.memory else "")


@kernels_always()
def measure(found: Comparison, device: str, dtype: torch.dtype, *, rounds: int, copy_gbps: float | None) -> Row:
    """Time all calls of a comparison in one run.

    Raises:
        Exception: what our own call raises; another's is left out.
    """
    calls: dict[str, Call] = {}
    turns: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, call in found.calls.items():
        try:
            call()
            if device == "cuda":
                megabytes = peak_megabytes(call)
                turns[name], memory[name] = time_on_gpu(call), megabytes
            calls[name] = call
        except Exception as error:  # a rival's limits are of any kind: unsupported shapes, compilers, memory
            if name == found.op:
                raise
            left_out[name] = first_line(error)
    turns = turns or time_on_cpu(calls, rounds)
    ours = turns[found.op]
    others = list(zip(*(taken for name, taken in turns.items() if name != found.op), strict=True))
    ratios = [min(other) / own for other, own in zip(others, ours)] or [float("nan")]
    seconds = statistics.median(ours) / 1e3
    needed, floor = _needed(found, dtype, device)
    return Row(
        found.op,
        found.case,
        device_name(device),
        str(dtype).removeprefix("torch."),
        "triton" if found.kernel and runs_triton(found.probe) else "aten",
        {name: statistics.median(taken) for name, taken in turns.items()},
        _spread(ours),
        statistics.median(ratios),
        tflops=needed.flops / seconds / 1e12 if needed else None,
        gbps=needed.bytes / seconds / 1e9 if needed else None,
        floor=floor / seconds if floor else None,
        copy=needed.bytes / seconds / 1e9 / copy_gbps if needed and copy_gbps else None,
        memory=memory,
        left_out=left_out,
        shapes=found.shapes or {},
    )


def first_line(error: Exception) -> str:
    """What an error says, short enough for a table."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def time_on_gpu(call: Call) -> list[float]:
    """Milliseconds of a call, 20 %, 50 % and 80 % quantiles by `triton.testing.do_bench`, which clears the L2."""
    from triton.testing import do_bench

    return do_bench(call, warmup=25, rep=100, quantiles=[0.2, 0.5, 0.8])


def time_on_cpu(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Milliseconds by turn: calls take turns, so that other work on the machine slows them alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(1e3 * (time.perf_counter() - start))
    return taken


def copy_bandwidth(device: str) -> float | None:
    """GB/s of a plain copy of a gigabyte, read and written; None on a CPU, whose caches make it no yardstick."""
    if device != "cuda":
        return None
    source = torch.randn(2**28, device=device)
    target = torch.empty_like(source)
    milliseconds = time_on_gpu(lambda: target.copy_(source))[1]
    return 2 * source.nbytes / milliseconds / 1e6


def peak_megabytes(call: Call) -> float:
    """Memory that a call takes on the GPU at its peak, its result included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def _needed(found: Comparison, dtype: torch.dtype, device: str) -> tuple[Cost | None, float | None]:
    """What the operation costs, and the seconds of its floor on this device."""
    if found.shapes is None:
        return None, None
    known = next((key for key in DEVICES if device == "cuda" and key in device_name(device).lower()), None)
    needed = cost(found.op, found.shapes, str(dtype).removeprefix("torch."), known or "h200")
    return needed, needed.seconds if known else None


def _spread(taken: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(taken)
    return ordered[len(ordered) // 5], ordered[-1 - len(ordered) // 5]
