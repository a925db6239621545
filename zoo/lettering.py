"""Names in any script on a picture: the installed fonts that have their letters, and what stands for letters that none
has.

Pictures inside a page need only `as_written`: a browser has fonts of its own.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib
from matplotlib import font_manager

BOXES = "Last Resort High-Efficiency"
"""matplotlib's font that has a box for every letter."""


@dataclass(frozen=True)
class Lettering:
    """families: what to give matplotlib as font.family while the texts are made. absent: letters in none of them."""

    families: list[str]
    absent: frozenset[str]

    def __call__(self, text: str) -> str:
        """
        >>> Lettering([], frozenset("圆🔴"))("圆 or 🔴, $5")
        '\\\\u5706 or [large red circle], \\\\$5'
        """
        return as_written("".join(_stand_in(letter) if letter in self.absent else letter for letter in text))


def lettering(texts: Iterable[str]) -> Lettering:
    """How to write these texts: with matplotlib's own font, and as few of the installed families as help."""
    families = list(matplotlib.rcParams["font.family"])
    absent = {letter for text in texts for letter in text if unicodedata.category(letter)[0] not in "CZ"}
    absent -= _known(font_manager.findfont(font_manager.FontProperties()), absent)
    known = {name: _known(path, absent) for name, path in _installed().items()} if absent else {}
    while absent and known:
        best = max(known, key=lambda name: len(known[name] & absent))
        if not known[best] & absent:
            break
        families.append(best)
        absent -= known[best]
    return Lettering(families, frozenset(absent))


def as_written(text: str) -> str:
    """The text for matplotlib, which reads what stands between two dollars as a formula.

    >>> as_written("$5 or $6")
    '\\\\$5 or \\\\$6'
    """
    return text.replace("$", r"\$")


def _installed() -> dict[str, str]:
    """Family -> a file of it."""
    upright = [font for font in font_manager.fontManager.ttflist if font.style == "normal" and font.name != BOXES]
    ordered = sorted(upright, key=lambda font: ("Sans" not in font.name, font.name, font.weight != 400))
    return {font.name: font.fname for font in reversed(ordered)}


def _known(path: str, letters: set[str]) -> set[str]:
    """Those of the letters that a font file has."""
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):
        return set()
    return {letter for letter in letters if font.get_char_index(ord(letter))}


def _stand_in(letter: str) -> str:
    """A symbol's name, a letter's code as Python writes it."""
    name = unicodedata.name(letter, "") if unicodedata.category(letter) == "So" else ""
    return f"[{name.lower()}]" if name else letter.encode("ascii", "backslashreplace").decode()
