"""`download`: released weights into the cache, for a machine that is offline later."""

import argparse

ABOUT = "Fetch released weights into the cache, checked by their hash."
EXAMPLES = """
python -m zoo download litv2
python -m zoo download litv2:small
ZOO_HOME=/data/zoo python -m zoo download litv2 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME[:TAG]", help="a model of `list`, and which of its weights")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> None:
    from functools import partial

    from zoo.checkpoints import fetch_checkpoint
    from zoo.errors import together
    from zoo.terminal import print_json

    wanted = [name.partition(":")[::2] for name in args.names]
    together(partial(_find, name, tag) for name, tag in wanted)
    paths = {word: str(fetch_checkpoint(name, tag or None)) for word, (name, tag) in zip(args.names, wanted)}
    if args.json:
        print_json(paths)
        return
    for word, path in paths.items():
        print(f"{word}  {path}")


def _find(name: str, tag: str) -> None:
    from zoo.catalogue import entry

    entry(name).checkpoint(tag or None)
