"""`serve`: a page in the browser to ask a concept model about pictures and to correct it."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.artifact import ModelInfo
    from zoo.trained import Described

ABOUT = "Open a page in the browser: drop a picture, see its concepts, correct them, take the corrections along."
EXAMPLES = """
python -m zoo serve latest
python -m zoo serve latest --port 8080 --no-browser
python -m zoo train data=folder data.root=photos data.concepts=corrections.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="RUN", help="a run's folder, latest, or a catalogue model with weights")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; by default only this computer's own")
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="by default any free one")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open nothing")


def _port(word: str) -> int:
    if not word.isdecimal() or int(word) > 65535:
        raise argparse.ArgumentTypeError(f"{word!r} is no port: give 0 to 65535")
    return int(word)


def run(args: argparse.Namespace) -> None:
    from functools import partial
    from importlib.util import find_spec

    from zoo.errors import MissingDependency, together
    from zoo.inference import transform_of
    from zoo.serve.address import check_address
    from zoo.trained import open_checked

    if find_spec("nicegui") is None:
        raise MissingDependency("nicegui", "demo", "serve")

    def fits(described: "Described") -> None:
        together([partial(_check_concepts, described.info), partial(transform_of, described.info)])

    trained, _, _ = open_checked(args.source, fits, partial(check_address, args.host, args.port))
    from zoo.serve.server import serve

    serve(trained, host=args.host, port=args.port, browser=not args.no_browser)


def _check_concepts(info: "ModelInfo") -> None:
    from zoo.errors import UserError

    if not info.concept_names:
        where = "python -m zoo explain shows where in an image it reads its answer"
        raise UserError(f"{info.name} has no named concepts to correct: {where}")
