"""`list`: the models of the catalogue."""

import argparse

ABOUT = "List the models of the catalogue, by family."
EXAMPLES = """
python -m zoo list
python -m zoo list 'lit*'
python -m zoo list --family concept
python -m zoo list --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("glob", nargs="?", default="*", metavar="GLOB", help="wildcard over the names, e.g. 'c*'")
    parser.add_argument("--family", metavar="F", help="concept, information, split or vision")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="machine-readable")
    form.add_argument("--markdown", action="store_true", help="the table of README.md")


def run(args: argparse.Namespace) -> None:
    from zoo import catalogue
    from zoo.errors import UserError, suggest
    from zoo.readme_table import table
    from zoo.terminal import print_json, print_table

    entries = [catalogue.entry(name) for name in catalogue.list_models(args.glob, family=args.family)]
    if args.json:
        print_json(
            [
                {
                    "name": e.name,
                    "family": e.family,
                    "title": e.title,
                    "year": e.year,
                    "paper": e.paper,
                    "checkpoints": list(e.checkpoints),
                }
                for e in entries
            ]
        )
        return
    if not entries:
        raise UserError(f"no model matches {args.glob!r}: {suggest(args.glob, catalogue.names())}")
    if args.markdown:
        print(table(entries), end="")
        return
    rows = [(e.name, e.family, e.title, e.year, ", ".join(e.checkpoints)) for e in entries]
    print_table(["name", "family", "what it is", "year", "weights"], rows)
