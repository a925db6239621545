"""From an exception to the lines that the user reads and the exit code.

A `ZooError` is printed as it is. A ValueError raised by the zoo's own code is a user's mistake, because models and data
report one so; it stays one when a loader's worker process or Hydra's instantiation passes it on. Everything else is a
failed run, told in one line.
"""

import re
import traceback
from pathlib import Path

import zoo
from zoo.errors import BAD_INPUT, FAILED, ZooError

LONGEST = 500


def describe(error: BaseException, verb: str) -> tuple[list[str], int]:
    """The lines for stderr, and the exit code."""
    error = _original(error)
    if isinstance(error, ZooError):
        return _error_lines(str(error)), error.exit_code
    worker = _from_worker(error)
    message = worker or str(error)
    if isinstance(error, ValueError) and _raised_by_the_zoo(error):
        return _error_lines(message), BAD_INPUT
    logs = [note for note in getattr(error, "__notes__", []) if note.startswith("log: ")]
    where = logs[-1] if logs else "run again with --debug for the traceback"
    message = " ".join(message.split())
    message = message if len(message) <= LONGEST else message[:LONGEST] + " ..."
    return [f"{' '.join(['zoo', *verb.split()])} failed: {type(error).__name__}: {message} ({where})"], FAILED


def _error_lines(message: str) -> list[str]:
    return [f"error: {line}" for line in message.splitlines() if line.strip()]


def _original(error: BaseException) -> BaseException:
    """What a constructor raised, below Hydra's wrapping of it."""
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        error = error.__cause__
    return error


def _from_worker(error: BaseException) -> str | None:
    """The message that a loader's worker process wrapped in the text of its traceback."""
    text = str(error)
    if not (text.startswith("Caught ") and "Original Traceback" in text):
        return None
    return text.rstrip().splitlines()[-1].partition(": ")[2]


def _raised_by_the_zoo(error: BaseException) -> bool:
    """Whether the exception's class, or the innermost frame here or in the worker, is one of ours."""
    if type(error).__module__.split(".")[0] == "zoo":
        return True
    if _from_worker(error) is not None:
        files = re.findall(r'^\s*File "([^"]+)", line', str(error), flags=re.MULTILINE)
        return bool(files) and _is_ours(Path(files[-1]))
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__")).split(".")[0] == "zoo"


def _is_ours(file: Path) -> bool:
    below = (file.relative_to(folder) for folder in map(Path, zoo.__path__) if file.is_relative_to(folder))
    return any("site-packages" not in path.parts for path in below)
