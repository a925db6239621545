"""`info`: everything the catalogue says about one model."""

import argparse
import ast
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.catalogue import Entry

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
        print_json(asdict(found) | {"command": found.command, "published_command": found.published_command})
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
    if found.training:
        facts["published"] = found.published_command
    print()
    for label, value in facts.items():
        print(f"{label:<10} {value or '-'}")
    defaults = {key: _shown(value) for key, value in found.arguments.items()} | _others(found)
    if defaults:
        print()
        print_table(["argument", "default"], [(f"model.{key}", value) for key, value in defaults.items()])
    if found.figures:
        print()
        columns = list(dict.fromkeys(key for figure in found.figures for key in figure))
        print_table(columns, [[figure.get(key) for key in columns] for figure in found.figures], title="published")
    if found.checkpoints:
        print()
        rows = [(f"{found.name}:{c.tag}", c.url, c.sha256[:12]) for c in found.checkpoints.values()]
        print_table(["weights", "from", "sha256"], rows)


def _others(found: "Entry") -> dict[str, str]:
    """Constructor arguments that the recipe leaves at their default, and what that is."""
    from zoo.build import FROM_DATA
    from zoo.signatures import parameters

    return {
        name: _default(given.default)
        for name, given in (parameters(found.target) or {}).items()
        if given.default and name not in found.arguments and name not in ("backbone", *FROM_DATA)
    }


def _default(source: str) -> str:
    try:
        return _shown(ast.literal_eval(source))
    except ValueError:  # a name or a call: as it is written
        return source


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
