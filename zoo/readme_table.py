"""The table of models in README.md, made from the catalogue: `python -m zoo list --markdown`."""

from collections.abc import Iterable

from zoo.catalogue import Entry

BEGIN, END = "<!-- models:begin -->", "<!-- models:end -->"


def table(entries: Iterable[Entry]) -> str:
    """A Markdown table with one row per model: name, family, what it is, and the paper as a link."""
    rows = [f"| `{e.name}` | {e.family} | {e.title} | [{e.paper}]({e.url}) |" for e in entries]
    return "\n".join(["| model | family | what it is | paper |", "|---|---|---|---|", *rows, ""])


def between_markers(text: str) -> str:
    """The table that `text` holds between its markers.

    Raises:
        ValueError: a marker is absent.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"no table of models: the markers {BEGIN} and {END} are absent")
    return text.split(BEGIN, 1)[1].split(END, 1)[0].strip("\n") + "\n"
