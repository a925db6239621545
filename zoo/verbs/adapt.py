"""`adapt`: repair a concept model for a new domain from a few labelled images, without training; a new model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.models.contract import Batch
    from zoo.trained import Described

ABOUT = "Repair a concept model for a new domain from a few labelled images, as a new model."
EXAMPLES = """
python -m zoo adapt latest --images new_camera
python -m zoo adapt latest --images new_camera --out repaired --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run of cbm or tf_tti")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="a folder of images for each class")
    parser.add_argument("--skip", action="store_true", help="leave out files that cannot be read")
    parser.add_argument("--out", type=Path, metavar="DIR", help="by default the run's name with -adapt, beside it")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    import copy
    from functools import partial

    from zoo.derived import check_new, say, write_derived
    from zoo.inference import check_folder
    from zoo.repairable import repairable
    from zoo.terminal import print_json
    from zoo.trained import open_checked

    others = [partial(check_folder, args.images), *([partial(check_new, args.out)] if args.out else [])]
    trained, batches, _ = open_checked(args.source, partial(_fitting, args.images, args.skip), *others)
    trained = trained if hasattr(trained.model, "adapt") else repairable(trained)
    adapted: Any = copy.deepcopy(trained.model)
    repair = adapted.adapt(batches)
    names = trained.info.concept_names
    change: dict[str, Any] = {
        "images": sum(len(batch["label"]) for batch in batches),
        "masked": [name for name, gone in zip(names, repair.masked.tolist()) if gone],
        "amplified": {name: round(gain, 4) for name, gain in zip(names, repair.gain.tolist()) if gain != 1},
        "right": [_right(model, batches) for model in (trained.model, adapted)],
    }
    found = write_derived(trained, adapted, kind="adapt", change=change, out=args.out)
    if args.json:
        print_json({"run": str(found), "adapt": change})
        return
    before, after = change["right"]
    print(f"masked: {', '.join(change['masked']) or 'none'}")
    print(f"amplified: {', '.join(f'{name} x{gain:g}' for name, gain in change['amplified'].items()) or 'none'}")
    print(f"{before} of {change['images']} images right before, {after} after (they chose the repair)")
    if not change["masked"] and not change["amplified"]:
        print("nothing helped: the new model answers as the old one does")
    say(found, None)


def _fitting(images: Path, skip: bool, described: "Described") -> "list[Batch]":
    """The images, of a model that can be repaired."""
    from functools import partial

    from zoo.errors import together
    from zoo.inference import labelled_images
    from zoo.repairable import check_repairable

    read = partial(labelled_images, images, described.info, skip=skip)
    return together([partial(check_repairable, described.info), read])[1]


def _right(model: Any, batches: list[Any]) -> int:
    """How many of the images the model puts into their class."""
    import torch

    with torch.inference_mode():
        return sum(int((model(batch["image"]).prediction.argmax(-1) == batch["label"]).sum()) for batch in batches)
