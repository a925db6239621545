"""`cp`: a model's recipe as a file of your own."""

import argparse
import shutil
from pathlib import Path

ABOUT = "Copy a model's recipe to edit it; train takes it as model=FILE."
EXAMPLES = """
python -m zoo cp cbm mine.yaml
python -m zoo train model=mine.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a model of `list`")
    parser.add_argument("dest", metavar="DEST", type=Path, help="a file, or a folder for NAME.yaml")
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def run(args: argparse.Namespace) -> None:
    from zoo.catalogue import entry
    from zoo.errors import UserError
    from zoo.files import replacing

    source = entry(args.name).path
    dest: Path = args.dest.expanduser()
    dest = dest / source.name if dest.is_dir() else dest
    if dest.suffix not in (".yaml", ".yml"):
        raise UserError(f"{dest}: a recipe's name ends in .yaml")
    if not dest.parent.is_dir():
        raise UserError(f"{dest}: there is no folder {dest.parent}: make it first")
    if dest.exists() and not args.force:
        raise UserError(f"{dest} exists: choose another name, or overwrite it with --force")
    try:
        with replacing(dest) as beside:
            shutil.copyfile(source, beside)
    except OSError as error:
        raise UserError(f"{dest}: cannot be written: {error.strerror}") from None
    print(f"wrote {dest}; edit it, then: python -m zoo train model={dest}")
