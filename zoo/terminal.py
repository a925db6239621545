"""What a verb prints: rich tables on a terminal, plain aligned text elsewhere, JSON for machines.

NO_COLOR and TERM=dumb are honoured (by rich); a pipe never sees a colour, a box or a line cut to a width.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from zoo.files import without_nan


def print_json(value: Any) -> None:
    """One JSON document on stdout; what JSON does not know (paths, tuples of numbers) is written as text."""
    print(json.dumps(without_nan(value), indent=2, default=str, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """A table on stdout; columns whose cells are all numbers are aligned to the right."""
    cells = [[_text(cell) for cell in row] for row in rows]
    numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    if sys.stdout.isatty():
        _rich_table(columns, cells, numeric, title)
        return
    if title:
        print(title)
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        padded = (c.rjust(w) if right else c.ljust(w) for c, w, right in zip(line, widths, numeric))
        print("  ".join(padded).rstrip())


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell + 0.0:.4g}"  # adding zero makes 0 of -0
    # a line break in the name of a file would make two rows of one
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(cell))


def _rich_table(columns: Sequence[str], cells: list[list[str]], numeric: list[bool], title: str | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for name, right in zip(columns, numeric):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(escape, row))
    Console().print(table)


class ByteProgress:
    """A progress bar over bytes on stderr, on terminals only; `update` takes the bytes that are there so far."""

    def __init__(self, label: str, done: int, total: int | None):
        self.progress = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self.progress = Progress(*columns, console=Console(stderr=True))
            self.task = self.progress.add_task(label, total=total, completed=done)

    def __enter__(self) -> "ByteProgress":
        if self.progress:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress:
            self.progress.stop()

    def update(self, done: int) -> None:
        if self.progress:
            self.progress.update(self.task, completed=done)
