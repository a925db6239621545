"""`edit`: forbid a class to use a concept, for all images at once; writes a new model."""

import argparse
from pathlib import Path
from typing import Any

ABOUT = "Remove concepts from a class of a post-hoc concept model, as a new model."
EXAMPLES = """
python -m zoo edit latest --class 8 --concept lower_loop
python -m zoo edit latest --class 8 --concept lower_loop --concept top_bar --normalise --out edited
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run of pcbm or pcbm_h")
    parser.add_argument("--class", required=True, metavar="CLASS", dest="class_name")
    parser.add_argument("--concept", required=True, action="append", metavar="CONCEPT", help="may be repeated")
    parser.add_argument("--normalise", action="store_true", help="scale the class's other weights to the old sum")
    parser.add_argument("--out", type=Path, metavar="DIR", help="by default the run's name with -edit, beside it")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    import copy

    from zoo.derived import accuracies, say, write_derived
    from zoo.errors import UserError
    from zoo.terminal import print_json
    from zoo.trained import open_trained

    trained = open_trained(args.source)
    if not hasattr(trained.model, "edit"):
        raise UserError(f"{trained.info.name} cannot be edited: train model=pcbm or model=pcbm_h on these data")
    label, concepts = _wanted(trained.info, args.class_name, args.concept)
    edited: Any = copy.deepcopy(trained.model)
    edited.edit(label, concepts, normalise=args.normalise)
    change = {"class": args.class_name, "concepts": args.concept, "normalise": args.normalise}
    found = write_derived(trained, edited, kind="edit", change=change, out=args.out)
    accuracy = accuracies(trained, trained.model, edited)
    if args.json:
        print_json({"run": str(found), "edit": change, "accuracy": accuracy})
        return
    print(f"class {args.class_name} no longer uses {', '.join(args.concept)}")
    if getattr(edited, "residual_classifier", None) is not None:
        print("its residual still sees the whole image and can undo the edit; pcbm has none")
    say(found, accuracy)


def _wanted(info: Any, class_name: str, concepts: list[str]) -> tuple[int, list[int]]:
    """Positions of the class and of the concepts.

    Raises:
        UserError: a line for each that is unknown.
    """
    from zoo.errors import UserError
    from zoo.trained import class_index, concept_index

    found: list[int] = []
    wrong: list[str] = []
    for position, name in ((class_index, class_name), *((concept_index, name) for name in concepts)):
        try:
            found.append(position(info, name))
        except UserError as error:
            wrong += error.lines
    if wrong:
        raise UserError(*wrong)
    return found[0], found[1:]
