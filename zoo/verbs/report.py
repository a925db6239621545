"""`report`: make a run's page again, from the files of the run."""

import argparse

ABOUT = "Rebuild report.html and MODEL_CARD.md of a run."
EXAMPLES = """
python -m zoo report latest
python -m zoo report outputs/supervised/cbm-digits/latest
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run's folder, or latest")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    from zoo.runs import find_run

    found = find_run(args.source)
    from zoo.report import write_report
    from zoo.terminal import print_json

    write_report(found)
    if args.json:
        print_json({"report": found.report, "card": found.card})
        return
    print(f"report   {found}/{found.report.name}\ncard     {found}/{found.card.name}")
