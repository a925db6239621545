"""`info`: everything the catalogue says about one model."""

import argparse
from typing import Any

ABOUT = "Show a model's paper, defaults, published figures, weights and training command."
EXAMPLES = """
python -m zoo info cbm
python -m zoo info litv2 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a model of `list`")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from zoo.catalogue import entry
    from zoo.terminal import print_json, print_table

    found = entry(args.name)
    if args.json:
        print_json(asdict(found) | {"command": found.command})
        return
    print(f"{found.name}: {found.title} ({found.family}, {found.year})")
    if found.summary:
        print(found.summary)
    facts = {
        "paper": f"{found.paper}  {found.url}".strip(),
        "reference": found.reference,
        "license": found.license,
        "class": found.target,
        "recipe": found.path,
        "train": found.command,
    }
    print()
    for label, value in facts.items():
        print(f"{label:<10} {value or '-'}")
    if found.arguments:
        print()
        print_table(["argument", "default"], [(f"model.{key}", _shown(v)) for key, v in found.arguments.items()])
    if found.figures:
        print()
        columns = list(dict.fromkeys(key for figure in found.figures for key in figure))
        print_table(columns, [[figure.get(key) for key in columns] for figure in found.figures], title="published")
    if found.checkpoints:
        print()
        rows = [(f"{found.name}:{c.tag}", c.url, c.sha256[:12]) for c in found.checkpoints.values()]
        print_table(["weights", "from", "sha256"], rows)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
