"""`predict`: what a trained model says of images."""

import argparse
import sys
from typing import Any

ABOUT = "Predict images: files, folders or wildcards."
EXAMPLES = """
python -m zoo predict latest digit.png
python -m zoo predict latest photos 'more/*.jpg' --skip
python -m zoo predict outputs/supervised/cbm-digits/latest photos --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run's folder, latest, or a catalogue model with weights")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders, or wildcards in quotes")
    parser.add_argument("--skip", action="store_true", help="leave out files that cannot be read, and name them")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    from functools import partial

    from zoo.inference import find_images, predict_files, transform_of
    from zoo.terminal import print_json
    from zoo.trained import open_checked

    find = partial(find_images, args.images, skip=args.skip)
    trained, _, (paths,) = open_checked(args.source, lambda described: transform_of(described.info), find)
    answers, skipped = predict_files(trained, paths, skip=args.skip)
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print_json(answers) if args.json else _show(answers)


def _show(answers: list[dict[str, Any]]) -> None:
    from zoo.inference import present
    from zoo.terminal import print_table

    if any("values" in answer for answer in answers):
        columns = ["image", *answers[0]["values"]]
        rows: list[list[Any]] = [[answer["image"], *answer["values"].values()] for answer in answers]
    else:
        columns = ["image", "class", "probability"]
        rows = [[answer["image"], answer["class"], f"{answer['probability']:.1%}"] for answer in answers]
    if any("concepts" in answer for answer in answers):
        columns.append("concepts")
        rows = [[*row, present(answer["concepts"])] for row, answer in zip(rows, answers)]
    print_table(columns, rows)
