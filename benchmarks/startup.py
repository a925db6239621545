"""How long the command line takes to answer where it needs no torch, and to train the default model.

    python benchmarks/startup.py [--repeats 9] [--train] [--write]

Whole processes, wall time: 20 %, 50 % and 80 % quantiles. `--write` stores the figures in startup.csv.
"""

import argparse
import csv
import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ANSWERS = {
    "help": ["--help"],
    "list": ["list"],
    "info": ["info", "cbm"],
    "completion": ["completion", "bash"],
    "unknown verb": ["trian"],
    "unknown model": ["train", "model=cbn"],
    "wrong type": ["train", "task.lr=fast"],
}


def seconds(words: list[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "zoo", *words], cwd=folder, capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--train", action="store_true", help="also the default training, once")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name, words in ANSWERS.items():
            times = [seconds(words, folder) for _ in range(options.repeats)]
            lines.append([name, *np.quantile(times, (0.2, 0.5, 0.8)).round(3).tolist()])
        if options.train:
            took = round(seconds(["train"], folder), 1)
            lines.append(["train (no arguments)", took, took, took])
    for name, low, median, high in lines:
        print(f"{name:22}{median:8.3f} s  ({low:.3f} to {high:.3f})")
    if options.write:
        with Path(__file__).with_suffix(".csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["command", "q20_s", "median_s", "q80_s", "machine", "date"])
            writer.writerows([*line, machine, datetime.date.today().isoformat()] for line in lines)


if __name__ == "__main__":
    main()
