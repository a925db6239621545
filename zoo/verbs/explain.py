"""`explain`: which concepts spoke for an answer, and what the answer were with other concepts; without concepts, where
in the image it was read."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.explanation import Explanation, Reading
    from zoo.trained import Described

ABOUT = "Show which concepts spoke for the answer to an image, and correct them; without concepts, where it was read."
EXAMPLES = """
python -m zoo explain latest digit.png
python -m zoo explain latest digit.png --set lower_loop=0 --set lower_stem=1
python -m zoo explain latest digit.png --out why.png --json
"""
SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run's folder, latest, or a catalogue model with weights")
    parser.add_argument("image", metavar="IMAGE", help="one image file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="CONCEPT=VALUE",
        dest="settings",
        help="correct a concept, from 0 (absent) to 1 (present); may be repeated",
    )
    parser.add_argument("--out", metavar="FILE.png", help="the picture; by default IMAGE-explained.png in this folder")
    parser.add_argument("--json", action="store_true", help="machine-readable; draws no picture unless --out is given")


def run(args: argparse.Namespace) -> None:
    from functools import partial

    from zoo.data.transforms import load_image
    from zoo.explanation import Reading, check_picture, explain, explain_reading, save_picture
    from zoo.terminal import print_json
    from zoo.trained import open_checked

    picture = None if args.json else f"{Path(args.image).stem}-explained.png"
    picture = picture if args.out is None else args.out
    drawn = [] if picture is None else [partial(check_picture, Path(picture))]
    trained, (intervene, transform), (raw, *_) = open_checked(
        args.source, partial(_asked, args.settings), partial(load_image, args.image), *drawn
    )
    image = transform(raw)
    found = explain(trained, image, intervene) if trained.info.concept_names else explain_reading(trained, image)
    if picture is not None:
        placed = isinstance(found, Reading) or found.places
        absent = save_picture(Path(picture), found, transform.crop(raw) if placed else raw)
        if absent:
            line = f"{picture}: no installed font has {absent}, so codes stand there: install one, such as Noto Sans"
            print(line, file=sys.stderr)
    if args.json:
        print_json({"image": args.image, **_as_json(found), "picture": picture})
        return
    _show_reading(found) if isinstance(found, Reading) else _show(found, args.settings)
    print(f"\npicture  {picture}")


def _asked(settings: list[str], described: "Described") -> list[Any]:
    """The corrections, and what an image goes through first."""
    from functools import partial

    from zoo.errors import together
    from zoo.explanation import check_explainable, corrections
    from zoo.inference import transform_of

    info = described.info
    wanted = partial(corrections, settings, info), partial(transform_of, info), partial(check_explainable, info)
    return together(wanted)[:2]


def _as_json(found: "Explanation | Reading") -> dict[str, Any]:
    from dataclasses import asdict

    from zoo.explanation import Reading

    if not isinstance(found, Reading):
        return asdict(found)
    seen = found.occlusion
    drops = [[round(drop, 4) for drop in row] for row in seen.drops.tolist()]
    return {"answer": found.answer, "occlusion": {"patch": seen.patch, "stride": seen.stride, "drops": drops}}


def _show_reading(found: "Reading") -> None:
    from zoo.explanation import headline
    from zoo.occlusion import in_a_line

    print(headline(found))
    print(in_a_line(found.occlusion))


def _show(found: "Explanation", settings: list[str]) -> None:
    from zoo.explanation import headline, levels_sent, size_sent
    from zoo.terminal import print_table

    print(headline(found))
    changed = {word.rpartition("=")[0]: word.rpartition("=")[2] for word in settings}
    strongest = sorted(found.contributions, key=lambda name: (name not in changed, -abs(found.contributions[name])))
    rows = [
        [name, f"{found.answer['concepts'][name]:.1%}", changed.get(name), round(found.contributions[name], 3)]
        for name in strongest[: len(changed) + SHOWN]
    ]
    columns = ["concept", "seen", "set to", f"speaks for {found.about}"]
    if not changed:
        columns, rows = columns[:2] + columns[3:], [row[:2] + row[3:] for row in rows]
    print_table(columns, rows)
    if found.sent:
        print(f"\nleft the device: {size_sent(found.sent)}\n  as levels: {', '.join(levels_sent(found.sent))}")
