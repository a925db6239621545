"""What an error line of ours says of another library: its reason in a sentence, its nearest names."""

import difflib
import re
from collections.abc import Sequence


def first_sentence(error: Exception) -> str:
    """The first sentence of another library's error, for use within a line of ours."""
    return re.split(r"\.?\s*\n|\. |\.$", str(error).strip())[0]


def nearest(word: str, names: Sequence[str]) -> str:
    """The end of a line about an unknown name: the nearest known ones, or the first few."""
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5) or list(names)[:5]
    return f"did you mean {' or '.join(near)}?" if near else "it has none at all"


def not_built(name: str, error: Exception, *, file: str, random: str) -> ValueError:
    """A network that a library could not build with its weights: give a `file` of them, or take `random` ones."""
    reason = first_sentence(error)
    return ValueError(
        f"{name} could not be built with its weights ({reason}): give a local file as {file}, or {random}"
    )
