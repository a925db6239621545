"""`export`: a trained model as a file to deploy, checked against the model in the same call."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.export.job import Job
    from zoo.trained import Described

ABOUT = "Export a trained model to ONNX, PT2 or safetensors, checked against it on real images."
EXAMPLES = """
python -m zoo export latest --format onnx
python -m zoo export latest --format onnx --int8
python -m zoo export latest --format pt2 --out deployed --tolerance 1e-4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run's folder, latest, or a catalogue model with weights")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="data=NAME and data.key=value: images to check with"
    )
    parser.add_argument(
        "--format", choices=["onnx", "pt2", "safetensors"], default="onnx", help="of the files (default onnx)"
    )
    parser.add_argument("--int8", action="store_true", help="8-bit weights and activations")
    parser.add_argument("--out", type=Path, metavar="DIR", help="by default export/FORMAT in the run's folder")
    parser.add_argument(
        "--tolerance",
        type=float,
        help="largest difference to the model (default 1e-3); with --int8 the least share of equal answers (0.98)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    from functools import partial

    from zoo.export.job import Job, check_job, export
    from zoo.terminal import print_json
    from zoo.trained import check_data_words, open_checked

    job = Job(args.format, int8=args.int8, out=args.out, tolerance=args.tolerance)
    others = [partial(check_job, job), partial(check_data_words, args.overrides)]
    trained, _, _ = open_checked(args.source, partial(_fits, job, args.overrides), *others)
    result = export(trained, job, args.overrides)
    print_json(result) if args.json else _show(result)


def _fits(job: "Job", words: list[str], described: "Described") -> None:
    """The place for the files, and the data that were named."""
    from functools import partial

    from zoo.errors import together
    from zoo.export.job import check_place
    from zoo.trained import data_of

    named = [partial(data_of, described, words)] if words else []
    together([partial(check_place, job, described), *named])


def _show(result: dict[str, Any]) -> None:
    from zoo.terminal import print_table

    found = result["parity"]
    rows = [[f"max abs difference, {name}", f"{value:.3g}"] for name, value in found["max_abs"].items()]
    if len(result["parts"]) > 1:
        rows.append(["max abs difference, end to end", f"{found['end_to_end']:.3g}"])
    rows.append(["same answer", f"{found['agreement']:.1%}"])
    print_table(["check", "value"], rows, title=f"against PyTorch on {result['checked_on']}")
    if result["int8"]:
        shown = {"bytes": "{:,}", "accuracy": "{:.1%}", "latency_ms": "{:.3f}"}
        gains = {name: [text.format(value) for value in result[name]] for name, text in shown.items() if name in result}
        print()
        print_table(["measure", "float", "8 bits"], [[name, *pair] for name, pair in gains.items()])
    print()
    for name in result["files"]:
        print(f"wrote    {result['folder']}/{name}")
