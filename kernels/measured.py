"""Whether a kernel was the faster path on this kind of GPU, where PyTorch has an operation that does the same.

kernels/measured.csv holds what `python benchmarks/kernels.py --device cuda` found, one line for each case. A call goes
by the case that is nearest in its sizes; on a GPU that has none it takes PyTorch's operation. Attention without bias
and mask is the one such case so far: the plain paths of the other operations were written for a CPU.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels.dispatch import SWITCH

FILE = Path(__file__).with_suffix(".csv")
COLUMNS = ("device", "op", "dtype", "sizes", "kernel_is_faster_by")
OPERATIONS = ("attention",)

_always = SWITCH == "always"


class Case(NamedTuple):
    """device: as PyTorch calls it. faster: the fastest other call's time over the kernel's."""

    device: str
    op: str
    dtype: str
    sizes: Mapping[str, int]
    faster: float


def kernel_pays(op: str, tensor: Tensor, sizes: Mapping[str, int]) -> bool:
    """Whether a call on a GPU takes the kernel. Compiled code, whose sizes may vary, takes PyTorch's operation."""
    if _always or not tensor.is_cuda:
        return True
    if torch.compiler.is_compiling():
        return False
    dtype = str(tensor.dtype).removeprefix("torch.")
    found = nearest(cases(FILE), torch.cuda.get_device_name(tensor.device), op, dtype, sizes)
    return found is not None and found.faster > 1


def said_of(device: str) -> str:
    """Which path attention takes on a GPU, and why, on one line."""
    if _always:
        return "Triton (ZOO_KERNELS=always)"
    pays = [case.faster > 1 for case in cases(FILE) if case.device == device]
    why = f"Triton paid in {sum(pays)} of {len(pays)} measured cases" if pays else "not measured on this GPU"
    return f"Triton; without bias and mask {'the faster path' if pays else 'PyTorch'} ({why})"


@contextmanager
def kernels_always() -> Iterator[None]:
    """Kernels whatever was measured, to measure them."""
    global _always
    before, _always = _always, True
    try:
        yield
    finally:
        _always = before


def nearest(known: Iterable[Case], device: str, op: str, dtype: str, sizes: Mapping[str, int]) -> Case | None:
    """The case of the same operation, device and dtype, with the same sizes at 0, whose other sizes differ least."""
    alike = [
        case
        for case in known
        if (case.device, case.op, case.dtype) == (device, op, dtype)
        and {key for key, size in case.sizes.items() if size} == {key for key, size in sizes.items() if size}
    ]
    return min(alike, key=lambda case: distance(case.sizes, sizes), default=None)


def distance(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    """Sum of the absolute logarithms of the ratios of sizes."""
    return sum(abs(math.log(a[key] / b[key])) for key in a if a[key])


@cache
def cases(file: Path) -> tuple[Case, ...]:
    """The lines of a table; none where it does not exist."""
    if not file.is_file():
        return ()
    with file.open(newline="") as lines:
        return tuple(
            Case(
                line["device"], line["op"], line["dtype"], read_sizes(line["sizes"]), float(line["kernel_is_faster_by"])
            )
            for line in csv.DictReader(lines)
        )


def read_sizes(words: str) -> dict[str, int]:
    """ "batch=64 heads=12" as numbers by name."""
    return {key: int(size) for key, size in (word.split("=") for word in words.split())}


def write(file: Path, found: Iterable[Case]) -> None:
    """A table, with what it held of other devices."""
    found = list(found)
    kept = [case for case in cases(file) if case.device not in {case.device for case in found}]
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        for case in [*kept, *found]:
            sizes = " ".join(f"{key}={size}" for key, size in case.sizes.items())
            writer.writerow([case.device, case.op, case.dtype, sizes, f"{case.faster:.3f}"])
