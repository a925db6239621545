"""What a user's mistake looks like: one line that says what is wrong, where, and what to do; and its exit code."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any

DONE, FAILED, BAD_INPUT, MISSING_DEPENDENCY, CHECK_FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130


class ZooError(Exception):
    """An error that the command line prints as one line, without a traceback, and exits with `exit_code`."""

    exit_code = FAILED


class UserError(ZooError):
    """Bad arguments, configuration or data. Several mistakes at once are several `lines`.

    >>> print(UserError("unknown model 'cbn': did you mean 'cbm'?"))
    unknown model 'cbn': did you mean 'cbm'?
    """

    exit_code = BAD_INPUT

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))
        self.lines = lines


def together(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """What the calls return.

    Raises:
        UserError: some of them found mistakes; the lines of all, each once.
    """
    results, lines = [], []
    for call in calls:
        try:
            results.append(call())
        except (UserError, ValueError) as error:
            lines += str(error).splitlines()
    if lines:
        raise UserError(*dict.fromkeys(lines))
    return results


class MissingDependency(ZooError):
    """An optional package is absent; the message ends with the install line, of the zoo's extra where one has it."""

    exit_code = MISSING_DEPENDENCY

    def __init__(self, package: str, extra: str | None, purpose: str):
        wanted = f"'bottleneck-zoo[{extra}]'" if extra else package
        super().__init__(f"{purpose} needs the package {package}: pip install {wanted}")


class CheckFailed(ZooError):
    """A check that was asked for (export parity, accuracy gate) failed; nothing was written."""

    exit_code = CHECK_FAILED


def suggest(word: str, valid: Iterable[str]) -> str:
    """The tail of an error line: the nearest valid names, or all of them when none is near.

    >>> suggest("cbn", ["cbm", "vib"])
    'did you mean cbm?'
    >>> suggest("x", ["cbm", "vib"])
    'choose one of cbm, vib'
    """
    names = sorted(valid)
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"choose one of {shown}" if names else "there is none"
