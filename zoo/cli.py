"""The command line: runs a verb, and turns what goes wrong into one line and an exit code.

    words -> verb file -> argparse -> run(args) -> exit code

Nothing on this path imports torch, so help and usage errors answer at once.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

import zoo
from zoo.errors import DONE, FAILED, INTERRUPTED, UserError, suggest
from zoo.failures import describe
from zoo.parser import load_verb, program, verb_names, verb_parser

DESCRIPTION = "Train, explain, compress, split and ship vision models whose bottleneck you can name."
EXAMPLES = """\
python -m zoo train                            a concept bottleneck model on handwritten digits, in about a minute
python -m zoo explain latest digit.png         which concepts spoke for the answer
python -m zoo list 'lit*'                      the models of the catalogue
python -m zoo VERB --help                      options and examples of a verb
"""


def help_text() -> str:
    """What `python -m zoo --help` prints."""
    verbs = "\n".join(f"  {name:<12}{load_verb(name).ABOUT}" for name in verb_names())
    examples = "\n".join(f"  {line}" for line in EXAMPLES.splitlines())
    usage = f"usage: {program()} VERB ... | --help | --version"
    return f"{usage}\n\n{DESCRIPTION}\n\nverbs:\n{verbs}\n\nexamples:\n{examples}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (`zoo.errors` lists them)."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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
        _check_working_folder()
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


def _open_streams() -> None:
    """Streams that the shell closed (`>&-`) read and write nothing, and no file opened later takes their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except OSError:
        raise UserError("the current folder is gone: change to another one (cd)") from None


def _flushed(code: int) -> int:
    sys.stdout.flush()
    return code
