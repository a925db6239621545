"""Every shared operation beside what a user would call instead.

    python benchmarks/kernels.py [--device cuda] [--only OP]

Writes benchmarks/kernels.csv, one line for each call, and on a GPU kernels/measured.csv, which decides where attention
takes its kernel; row by row, so that what was measured before an interruption is kept. With --only it writes nothing.
What fails is said at the end, and the rest is measured. Ten minutes at most on a GPU, most of it compilation; one on
two CPU cores.
"""

import argparse
import csv
import datetime
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from zoo.kernels import measured
from zoo.kernels.bench import COMPARISONS, Row, rows
from zoo.kernels.dispatch import why_no_triton

FILE = Path(__file__).with_suffix(".csv")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    parser.add_argument("--only", help="those whose name starts so")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here")
    if options.only is not None and not any(make.__name__.startswith(options.only) for make in COMPARISONS):
        known = ", ".join(make.__name__ for make in COMPARISONS)
        print(f"--only {options.only}: no comparison starts so, choose from {known}", file=sys.stderr)
        return 2
    print(why_no_triton() or "Triton kernels run here")
    where, lines, cases, failed = machine(options.device), [], [], {}
    for row in rows(options.device, only=options.only, failed=failed):
        print(row, flush=True)
        lines += [line | where for line in lines_of(row)]
        if options.only is None:
            write(lines)
        if row.path == "triton" and row.op in measured.OPERATIONS and row.shapes:
            cases.append(measured.Case(row.device, row.op, row.dtype, row.shapes, row.ratio))
        if cases and options.only is None:
            measured.write(measured.FILE, cases)
    for name, why in failed.items():
        print(f"{name} failed: {why}", file=sys.stderr)
    return 1 if failed else 0


def lines_of(row: Row) -> list[dict[str, str]]:
    """One line for each call; rates and shares stand in our own."""
    own = {"tflops": row.tflops, "gbps": row.gbps, "share_of_floor": row.floor, "share_of_copy": row.copy}
    return [
        {
            "op": row.op, "case": row.case, "device": row.device, "dtype": row.dtype, "path": row.path,
            "call": name, "milliseconds": f"{value:.4f}", "megabytes": number(row.memory.get(name)),
            "ours_is_faster_by": f"{row.ratio:.2f}",
        } | {key: number(value) if name == row.op else "" for key, value in own.items()}
        for name, value in row.times.items()
    ]  # fmt: skip


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def machine(device: str | None) -> dict[str, str]:
    """What the figures depend on."""
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm", "--format=csv,noheader"]
    asked = device != "cpu" and shutil.which(query[0])
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip() if asked else ""
    return {
        "torch": importlib.metadata.version("torch"), "triton": importlib.metadata.version("triton"),
        "driver_and_clock": driver, "machine": platform.machine(), "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def write(lines: list[dict[str, str]]) -> None:
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    raise SystemExit(main())
