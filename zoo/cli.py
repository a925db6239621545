"""The command line's frame: finds the verbs, runs one, and turns what goes wrong into one line and an exit code.

    words -> verb file -> argparse -> run(args) -> exit code

Nothing on this path imports torch, so help and usage errors answer at once.
"""

import argparse
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import zoo
import zoo.verbs
from zoo.errors import DONE, FAILED, INTERRUPTED, UserError, suggest
from zoo.failures import describe

DESCRIPTION = "Train, explain, compress, split and ship vision models whose bottleneck you can name."
EXAMPLES = """\
python -m zoo train                            a concept bottleneck model on handwritten digits, in about a minute
python -m zoo explain latest digit.png         which concepts spoke for the answer
python -m zoo list 'lit*'                      the models of the catalogue
python -m zoo VERB --help                      options and examples of a verb
"""


class Parser(argparse.ArgumentParser):
    """Raises `UserError` with one line instead of printing the usage and leaving."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help)")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse options and positionals in any order; every unknown word gets a line of its own."""
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


def help_text() -> str:
    """What `python -m zoo --help` prints."""
    verbs = "\n".join(f"  {name:<12}{load_verb(name).ABOUT}" for name in verb_names())
    examples = "\n".join(f"  {line}" for line in EXAMPLES.splitlines())
    usage = f"usage: {program()} VERB ... | --help | --version"
    return f"{usage}\n\n{DESCRIPTION}\n\nverbs:\n{verbs}\n\nexamples:\n{examples}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (`zoo.errors` lists them)."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb, debug = "", "--debug" in words
    try:
        while words[:1] == ["--debug"]:
            words.pop(0)
        if not words or words[0] in ("-h", "--help"):
            print(help_text())
            return _flushed(DONE)
        if words[0] in ("-V", "--version"):
            print(f"bottleneck-zoo {zoo.__version__}")
            return _flushed(DONE)
        if words[0].startswith("-"):
            raise UserError(f"unknown option {words[0]}: {suggest(words[0], ['--help', '--version', '--debug'])}")
        verb = words[0]
        args = verb_parser(verb).parse(words[1:])
        return _flushed(args.run(args) or DONE)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else (FAILED if leaving.code else DONE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has left; without this, Python complains again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        lines, code = describe(error, verb)
        print("\n".join(lines), file=sys.stderr)
        return code


def _flushed(code: int) -> int:
    sys.stdout.flush()
    return code
