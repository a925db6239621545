"""Compile every configuration that the kernels can be launched in, for GPUs that are not there, and say what it costs.

    python benchmarks/kernels_aot.py                       what changed since the table was written
    python benchmarks/kernels_aot.py --only attention      one operation
    python benchmarks/kernels_aot.py --fresh               everything again

Writes benchmarks/kernels_aot.csv: registers per thread, bytes spilled per thread, bytes of shared memory per block,
matrix instructions, asynchronous copies, with the version of Triton. Takes about a second per configuration and core.
"""

import argparse
import csv
import importlib.metadata
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from zoo.kernels.catalogue import COLUMNS, TARGETS, catalogue, fingerprint, operations, read_table, row

TABLE = Path(__file__).with_suffix(".csv")

Key = tuple[str, str]
Row = dict[str, str]


def compile_row(key: Key) -> Row:
    """Runs in a worker: compiles one configuration."""
    target, name = key
    configuration = catalogue(target, name.split(":")[0])[name]
    version = importlib.metadata.version("triton")
    return row(target, name, configuration, configuration.compile(target), version)


def write(path: Path, rows: list[Row]) -> None:
    order = {target: index for index, target in enumerate(TARGETS)}
    rows = sorted(rows, key=lambda line: (line["configuration"].split(":")[0], order[line["target"]]))
    beside = path.with_suffix(".part")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    beside.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="OPERATION", choices=operations(), default=operations())
    parser.add_argument("--targets", nargs="*", metavar="TARGET", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--fresh", action="store_true", help="compile everything again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--out", type=Path, default=TABLE, help="the table (default: beside this file)")
    given = parser.parse_args()

    wanted = {(target, name): entry for target in TARGETS for name, entry in catalogue(target).items()}
    known = {(line["target"], line["configuration"]): line for line in read_table(given.out)}
    chosen = [key for key in wanted if key[0] in given.targets and key[1].split(":")[0] in given.only]
    stale = [key for key in chosen if given.fresh or known.get(key, {}).get("source") != fingerprint(wanted[key])]
    stale.sort(key=lambda key: not wanted[key].main)
    kept = {key: line for key, line in known.items() if key in wanted and key not in stale}
    rows = {key: {**line, "main": str(int(wanted[key].main))} for key, line in kept.items()}

    print(f"{len(stale)} of {len(chosen)} configurations to compile, {given.jobs} processes")
    failed = 0
    # spawned, not forked: the compiler keeps threads
    with ProcessPoolExecutor(given.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(compile_row, key): key for key in stale}
        for count, done in enumerate(as_completed(running), 1):
            target, name = running[done]
            if done.exception() is not None:
                failed += 1
                print(f"{target} {name}: {str(done.exception()).splitlines()[0]}", file=sys.stderr)
                continue
            line = rows[target, name] = done.result()
            if int(line["spilled"]) or count % 25 == 0:
                print(f"{count}/{len(stale)} {target} {name}: {line['spilled']} B spilled", flush=True)
            if count % 25 == 0:
                write(given.out, list(rows.values()))
    write(given.out, list(rows.values()))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
