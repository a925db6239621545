"""Every operation beside what a user would call instead, timed in one run.

    for row in rows(): print(row)

On a GPU `triton.testing.do_bench` times each call; on a CPU the calls take turns and the turns are compared. Training
with a bias comes last: FlexAttention's gradient of it has crashed, and a crash takes the GPU from all that follows.
"""

from collections.abc import Callable, Iterator

import torch

from zoo.kernels.bench import attention, concepts, layers, linear
from zoo.kernels.bench.comparison import Comparison, Row, copy_bandwidth, first_line, measure

__all__ = ["COMPARISONS", "Comparison", "Row", "rows"]

COMPARISONS: tuple[Callable[[str, torch.dtype], Comparison], ...] = (
    *attention.COMPARISONS, *concepts.COMPARISONS, *layers.COMPARISONS, *linear.COMPARISONS, *attention.WINDOWS,
)  # fmt: skip


def rows(
    device: str | None = None, *, only: str | None = None, rounds: int = 7, failed: dict[str, str] | None = None
) -> Iterator[Row]:
    """Time all comparisons, or those whose name starts with `only`, on "cuda" where there is one, else on the CPU.

    failed: takes the comparisons in which our own call raises, and why; without it the error is raised.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    copy_gbps = copy_bandwidth(device)
    for make in COMPARISONS:
        if only is None or make.__name__.startswith(only):
            torch.manual_seed(0)
            torch.compiler.reset()  # a function that was compiled for eight shapes is compiled for no other
            try:
                row = measure(make(device, dtype), device, dtype, rounds=rounds, copy_gbps=copy_gbps)
            except Exception as error:
                if failed is None:
                    raise
                failed[make.__name__] = first_line(error)
            else:
                yield row
