"""Every shared operation beside what a user would call instead.

    python benchmarks/kernels.py [--device cuda] [--only OP]

Writes benchmarks/kernels.csv (one line for each comparison, with machine, versions and date). Ten minutes at most on a
GPU, about one on two CPU cores.
"""

import argparse
import csv
import datetime
import platform
from pathlib import Path

import torch

from zoo.kernels.bench import rows
from zoo.kernels.dispatch import why_no_triton

FILE = Path(__file__).with_suffix(".csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--only", help="those whose name starts so")
    options = parser.parse_args()
    print(why_no_triton() or "Triton kernels run here")
    lines = []
    for row in rows(options.device, only=options.only):
        print(row, flush=True)
        lines += [
            {
                "op": row.op, "case": row.case, "device": row.device, "dtype": row.dtype, "path": row.path,
                "call": name, "milliseconds": f"{value:.4f}", "ours_is_faster_by": f"{row.ratio:.2f}",
                "share_of_floor": "" if row.floor is None else f"{row.floor:.3f}", "torch": torch.__version__,
                "machine": platform.machine(), "date": datetime.date.today().isoformat(),
            }
            for name, value in row.times.items()
        ]  # fmt: skip
    if options.only is None:
        with FILE.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
