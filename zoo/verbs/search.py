"""`search`: images of the user by a sentence, and by what shall be different (CIReVL)."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.models.concept.cirevl import CIReVL

ABOUT = "Find images by a sentence; --but says what shall be different, --like shows an image."
EXAMPLES = """
python -m zoo search "a red circle" scenes
python -m zoo search "a red circle" scenes --but blue --top 3
python -m zoo search "thumb" hands backbone=word_clip:outputs/latest
python -m zoo search "at night" photos --like photos/beach.jpg backbone=clip backbone.name=ViT-B-32
"""
ADVICE = "replace or remove it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", metavar="TEXT", help="what the image shows")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders or wildcards; backbone=NAME and backbone.key=value"
    )
    parser.add_argument("--but", metavar="TEXT", help="what is different in the wanted image")
    parser.add_argument("--like", metavar="IMAGE", type=Path, help="an image whose features are averaged in")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="how many to show (default 5)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    from functools import partial

    from zoo.errors import UserError, together
    from zoo.inference import find_images
    from zoo.terminal import print_json, print_table

    overrides = [word for word in args.images if re.match(r"backbone[.=]", word)]
    words = [word for word in args.images if word not in overrides]

    def find() -> list[Path]:
        if not words:
            raise UserError("no images to search: name files, folders or wildcards after TEXT")
        find_images([*words, *([str(args.like)] if args.like else [])], advice=ADVICE)
        return find_images(words, advice=ADVICE)

    _, paths, config = together([partial(_check_top, args.top), find, partial(_configuration, overrides)])
    found = search(_model(config), paths, args.text, but=args.but, like=args.like)[: args.top]
    if args.json:
        print_json([{"image": str(path), "cosine": cosine} for path, cosine in found])
        return
    print_table(["image", "cosine"], [[path, f"{cosine:.3f}"] for path, cosine in found])


def _check_top(top: int) -> None:
    from zoo.errors import UserError

    if top < 1:
        raise UserError(f"--top {top}: give at least 1")


def _configuration(overrides: list[str]) -> dict[str, Any]:
    from zoo.artifact import with_weights_found
    from zoo.config import compose_config

    return with_weights_found(compose_config(["model=cirevl", *overrides]))


def _model(config: dict[str, Any]) -> "CIReVL":
    from zoo.build import construct

    backbone = construct(config["backbone"], {"in_channels": 3, "image_size": (224, 224)}, "backbone")
    return construct(config["model"], {"backbone": backbone}, "model").eval()


def search(
    model: "CIReVL", paths: list[Path], text: str, *, but: str | None = None, like: Path | None = None
) -> list[tuple[Path, float]]:
    """The images and their cosines with the query, the nearest first.

    Raises:
        UserError: an image that cannot be read, or a word that the text tower does not know.
    """
    import torch

    from zoo.errors import UserError

    reference = None if like is None else _features(model, [like])
    try:
        with torch.inference_mode():
            model.index(_features(model, paths))
            query = text if but is None else model.rewriter(text, but)
            cosines = model.search([query], reference=reference).prediction[0]
    except ValueError as error:
        raise UserError(str(error)) from None
    order = cosines.argsort(descending=True, stable=True).tolist()
    return [(paths[row], float(cosines[row])) for row in order]


def _features(model: Any, paths: list[Path], batch_size: int = 64) -> Any:
    import torch

    from zoo.data.contract import Preprocessing
    from zoo.data.transforms import Transform
    from zoo.errors import UserError
    from zoo.inference import read_images

    transform, rows = Transform(Preprocessing.from_dict(model.backbone.preprocessing)), []
    for begin in range(0, len(paths), batch_size):
        images, unreadable = read_images(paths[begin : begin + batch_size], transform)
        if unreadable:
            raise UserError(*(f"{line}; {ADVICE}" for line in unreadable))
        with torch.inference_mode():
            rows.append(model.backbone(torch.stack(list(images.values()))))
    return torch.cat(rows)
