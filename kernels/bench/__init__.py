"""Every operation beside what a user would call instead, timed in one run.

    for row in rows(): print(row)

On a GPU `triton.testing.do_bench` times each call; on a CPU the calls take turns and the turns are compared.
"""

from collections.abc import Callable, Iterator

import torch

from zoo.kernels.bench import attention, concepts, layers, linear
from zoo.kernels.bench.comparison import Comparison, Row, copy_bandwidth, measure

__all__ = ["COMPARISONS", "Comparison", "Row", "rows"]

COMPARISONS: tuple[Callable[[str, torch.dtype], Comparison], ...] = (
    *attention.COMPARISONS, *concepts.COMPARISONS, *layers.COMPARISONS, *linear.COMPARISONS,
)  # fmt: skip


def rows(device: str | None = None, *, only: str | None = None, rounds: int = 7) -> Iterator[Row]:
    """Time all comparisons, or those whose name starts with `only`, on "cuda" where there is one, else on the CPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    copy_gbps = copy_bandwidth(device)
    for make in COMPARISONS:
        if only is None or make.__name__.startswith(only):
            torch.manual_seed(0)
            yield measure(make(device, dtype), device, dtype, rounds=rounds, copy_gbps=copy_gbps)
