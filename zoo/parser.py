"""Finds the verbs and reads their words; every mistake is a `UserError` of one line, with the nearest valid names."""

import argparse
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import zoo.verbs
from zoo.errors import UserError, suggest


class Parser(argparse.ArgumentParser):
    """Raises `UserError` with one line instead of printing the usage and leaving."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        absent, names = "the following arguments are required: ", message.split(": ", 1)[-1].split(", ")
        if message.startswith(absent):
            # parsing in any order, argparse also names the arguments that may be left out
            free = {action.metavar for action in self._actions if action.nargs in ("*", "?")}
            message = absent + ", ".join(name for name in names if name not in free)
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help)")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse options and positionals in any order; every unknown word gets a line of its own."""
        before = list(words)[: words.index("--")] if "--" in words else words
        files = [word for word in before if word.startswith("-") and word not in self._option_string_actions]
        if files := [word for word in files if os.path.exists(word)]:
            raise UserError(
                *(f"{self.prog}: {word} looks like an option: for the file write ./{word}" for word in files)
            )
        args, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            raise UserError(*(self._unknown(word) for word in unknown))
        return args

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{self.prog}: unexpected argument {word!r} (see {self.prog} --help)"
        option = word.split("=")[0]
        return f"{self.prog}: unknown option {option}: {suggest(option, self._option_string_actions)}"


def program() -> str:
    """How the user called us: `zoo`, or `python -m zoo`."""
    return "python -m zoo" if os.path.basename(sys.argv[0]) == "__main__.py" else "zoo"


def verb_names() -> list[str]:
    """The verbs, by listing the files of zoo/verbs."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(zoo.verbs.__path__))


def load_verb(name: str) -> ModuleType:
    """The module of a verb.

    Raises:
        UserError: there is no such verb.
    """
    names = verb_names()
    if name not in names:
        raise UserError(f"unknown verb {name!r}: {suggest(name, names)}")
    return import_module(f"zoo.verbs.{name.replace('-', '_')}")


def verb_parser(name: str) -> Parser:
    """The parser of one verb, without loading the others."""
    verb = load_verb(name)
    epilog = "examples:\n" + "\n".join(f"  {line.strip()}" for line in verb.EXAMPLES.strip().splitlines())
    parser = Parser(prog=f"{program()} {name}", description=verb.ABOUT, epilog=epilog)
    verb.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback when something fails")
    parser.set_defaults(run=verb.run)
    return parser
