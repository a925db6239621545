"""`bench`: latency, throughput and memory of models beside plain ones, or of the zoo's kernels beside torch's."""

import argparse
from typing import Any

ABOUT = "Measure latency, throughput and memory of models, beside the same network in plain timm or torch."
EXAMPLES = """
python -m zoo bench latest
python -m zoo bench litv2 timm --data shapes --batch 1,8
python -m zoo bench cbm --device cuda --json
python -m zoo bench kernels
"""
KERNELS = "kernels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="runs, latest, models of the catalogue, or `kernels` alone"
    )
    parser.add_argument("--batch", metavar="N,N", help="batch sizes (default 1,8,32)")
    parser.add_argument("--device", metavar="DEVICE", help="cpu (default) or cuda; kernels prefer a GPU")
    parser.add_argument("--data", metavar="DATA", help="sizes and classes for models of the catalogue")
    parser.add_argument("--budget", type=float, help="seconds for each model and batch size (default 5)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    from zoo.errors import UserError, together

    if KERNELS in args.names:
        if len(args.names) > 1:
            raise UserError("kernels are measured alone: python -m zoo bench kernels")
        given = [name for name in ("batch", "data", "budget") if getattr(args, name) is not None]
        if given:
            raise UserError(*(f"--{name}: kernels have sizes and times of their own: leave it out" for name in given))
        return _kernels(args)
    from dataclasses import asdict
    from functools import partial

    from zoo.model_bench import check_device, measure, subject
    from zoo.terminal import print_json

    device, read = args.device or "cpu", partial(_batches, args.batch or "1,8,32")
    models = [partial(subject, name, data=args.data) for name in args.names]
    batches, budget, _, *subjects = together(
        [read, partial(_budget, args.budget), partial(check_device, device), *models]
    )
    found = [asdict(row) for each in subjects for row in measure(each, batches, device=device, budget_s=budget)]
    print_json({"machine": _machine(), "rows": found}) if args.json else _show(found)


def _batches(text: str) -> list[int]:
    from zoo.errors import UserError

    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UserError(f"--batch {text}: write positive numbers with commas, for example 1,8,32")
    return [int(word) for word in words]


def _budget(seconds: float | None) -> float:
    from zoo.errors import UserError

    if seconds is not None and not seconds >= 0:
        raise UserError(f"--budget {seconds:g}: give seconds, at least 0")
    return 5.0 if seconds is None else seconds


def _show(found: list[dict[str, Any]]) -> None:
    from zoo.terminal import print_table

    columns = ["model", "batch", "ms", "20-80 %", "images/s", "peak MB", "beside", "its ms", "ratio"]
    rows = [
        [
            row["model"],
            row["batch"],
            f"{row['milliseconds'][1]:.3f}",
            f"{row['milliseconds'][0]:.3f}-{row['milliseconds'][2]:.3f}",
            f"{row['images_per_second']:.0f}",
            f"{row['peak_bytes'] / 1e6:.2f}",
            row["plain"],
            row["plain_ms"] and f"{row['plain_ms']:.3f}",
            row["ratio"] and f"{row['ratio']:.2f}x",
        ]
        for row in found
    ]
    print_table(columns, rows, title="measured in turns; ratio above 1: ours is faster")


def _kernels(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from zoo.kernels.bench import rows
    from zoo.model_bench import check_device
    from zoo.terminal import print_json

    if args.device:
        check_device(args.device)
    if args.json:
        print_json({"machine": _machine(), "rows": [asdict(row) for row in rows(args.device)]})
        return
    for row in rows(args.device):
        print(row, flush=True)


def _machine() -> dict[str, Any]:
    from zoo.environment import environment

    return environment()
