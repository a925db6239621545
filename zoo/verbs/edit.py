"""`edit`: forbid a class to use a concept, for all images at once; writes a new model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.trained import Described

ABOUT = "Remove concepts from a class of a post-hoc concept model, as a new model."
EXAMPLES = """
python -m zoo edit latest --class 8 --concept lower_loop
python -m zoo edit latest --class 8 --concept lower_loop --concept top_bar --normalise --out edited
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run of pcbm or pcbm_h")
    parser.add_argument("--class", required=True, metavar="CLASS", dest="class_name", help="one of the model's")
    parser.add_argument(
        "--concept", required=True, action="append", metavar="CONCEPT", help="one of the model's; may be repeated"
    )
    parser.add_argument("--normalise", action="store_true", help="scale the class's other weights to the old sum")
    parser.add_argument("--out", type=Path, metavar="DIR", help="by default the run's name with -edit, beside it")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    import copy
    from functools import partial

    from zoo.derived import accuracies, check_new, say, write_derived
    from zoo.terminal import print_json
    from zoo.trained import open_checked

    names = list(dict.fromkeys(args.concept))
    others = [partial(check_new, args.out)] if args.out else []
    trained, (index, *concepts), _ = open_checked(args.source, partial(_places, args.class_name, names), *others)
    edited: Any = copy.deepcopy(trained.model)
    edited.edit(index, concepts, normalise=args.normalise)
    change = {"class": args.class_name, "concepts": names, "normalise": args.normalise}
    found = write_derived(trained, edited, kind="edit", change=change, out=args.out)
    accuracy = accuracies(trained, trained.model, edited)
    if args.json:
        print_json({"run": str(found), "edit": change, "accuracy": accuracy})
        return
    print(f"class {args.class_name} no longer uses {', '.join(names)}")
    if getattr(edited, "residual_classifier", None) is not None:
        print("its residual still sees the whole image and can undo the edit; pcbm has none")
    say(found, accuracy)


def _places(class_name: str, concepts: list[str], described: "Described") -> list[int]:
    """Positions of the class and of the concepts."""
    from functools import partial

    from zoo.build import network_class
    from zoo.errors import UserError, together
    from zoo.trained import class_index, concept_index

    info = described.info
    if not hasattr(network_class(info.recipe["target"]), "edit"):
        raise UserError(f"{info.name} cannot be edited: train model=pcbm or model=pcbm_h on these data")
    return together(
        [partial(class_index, info, class_name), *(partial(concept_index, info, name) for name in concepts)]
    )
