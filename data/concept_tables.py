"""Concept annotations in CSV files: `class_concepts.csv` (one row a class) and `concepts.csv` (one row an image).

    class_id,class_name,stem,top_bar          file,shape::circle,shape::square
    0,zero,0,0                                train/a/0.png,1,0

`class_concepts.csv` needs one of the two key columns. Values lie in [0, 1]. Columns called `group::value` (as in CUB)
are the mutually exclusive values of one attribute.
"""

import csv
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zoo.data.errors import DataError

CLASS_KEYS = ("class_id", "class_name")
FILE_KEYS = ("file",)


@dataclass
class ConceptTable:
    """A table as read: concept names, the key columns, and (N, K) values; `problems` has one line for each mistake."""

    path: Path
    names: tuple[str, ...] = ()
    keys: dict[str, list[str]] = field(default_factory=dict)
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    problems: list[str] = field(default_factory=list)

    @property
    def groups(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Group -> positions of its columns, for the columns called `group::value`."""
        members: dict[str, list[int]] = {}
        for position, name in enumerate(self.names):
            if "::" in name:
                members.setdefault(name.split("::", 1)[0], []).append(position)
        return tuple((group, tuple(positions)) for group, positions in members.items())


def read_table(path: Path, *, keys: Sequence[str]) -> ConceptTable:
    """Read a concept table with at least one of the key columns; mistakes are collected, not raised."""
    try:
        lines = _lines(path)
    except DataError as error:
        return ConceptTable(path, problems=[str(error)])
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    if problems := _header_problems(path, header, keys):
        return ConceptTable(path, problems=problems)
    concept_columns = [column for column, name in enumerate(header) if name not in keys]
    names = tuple(header[column] for column in concept_columns)
    table = ConceptTable(path, names, keys={name: [] for name in header if name in keys})
    rows, ragged, wrong = [], [], []
    for number, row in lines[1:]:
        if len(row) != len(header):
            ragged.append(
                f"{path} line {number}: {len(row)} cells, but the header has {len(header)}; add or remove cells"
            )
            continue
        values = [_number(row[column]) for column in concept_columns]
        wrong += [
            f"{path} line {number}: {name} is {row[column]!r}; give a number from 0 to 1"
            for value, name, column in zip(values, table.names, concept_columns)
            if value is None
        ]
        rows.append([value or 0.0 for value in values])
        for name, column in table.keys.items():
            column.append(row[header.index(name)].strip())
    table.values = np.array(rows, dtype=np.float32).reshape(len(rows), len(table.names))
    table.problems += shorten(ragged) + shorten(wrong) + _duplicates(table)
    return table


def class_rows(table: ConceptTable, classes: Sequence[str]) -> np.ndarray:
    """(num_classes, K): the row of each class, by name or by id; a class without a row is a problem of the table."""
    by = max(table.keys, key=lambda key: len(set(classes) & set(table.keys[key])))
    rows = dict(zip(table.keys[by], table.values))
    missing = [name for name in classes if name not in rows]
    unknown = [name for name in rows if name not in classes]
    table.problems += shorten(
        f"{table.path}: class {name!r} has no row; add one{_near(name, unknown)}" for name in missing
    )
    table.problems += shorten(
        f"{table.path}: {by} {name!r} is no class of the data; remove the row{_near(name, classes)}" for name in unknown
    )
    empty = np.zeros(len(table.names), dtype=np.float32)
    return np.stack([rows.get(name, empty) for name in classes])


def file_rows(table: ConceptTable, files: Sequence[str]) -> dict[str, np.ndarray]:
    """The row of each of `files`; a file without a row and a row without a file are problems of the table."""
    rows = dict(zip(table.keys["file"], table.values))
    known = set(files)
    table.problems += shorten(f"{table.path}: {name} has no row; add one" for name in files if name not in rows)
    table.problems += _strangers(table, known)
    return rows


def name_files(table: ConceptTable, files: Sequence[str]) -> None:
    """Complete the names in a table's column `file`: `0.png` and `a/0.png` mean `train/a/0.png` where no other of
    `files` ends so; what several files end with is a problem of the table."""
    known, endings = set(files), _endings(files)
    column = table.keys["file"]
    for position, name in enumerate(column):
        found = endings.get(name, [])
        if name not in known and len(found) > 1:
            table.problems.append(f"{table.path}: {name} may be {' or '.join(found[:3])}; write which")
        elif name not in known and found:
            column[position] = found[0]
    table.problems += [line for line in _duplicates(table) if line not in table.problems]


def misfits(table: ConceptTable, *, names: Sequence[str], files: Sequence[str]) -> list[str]:
    """Why the rows of a table cannot take the place of those of `files` with the concepts `names`, a line each."""
    known = set(files)
    lines = shorten(f"{table.path}: no column {name!r}; add one" for name in names if name not in table.names)
    lines += shorten(
        f"{table.path}: {name!r} is no concept of the data; remove the column{_near(name, names)}"
        for name in table.names
        if name not in names
    )
    return lines + _strangers(table, known)


def replace_rows(concepts: np.ndarray, table: ConceptTable, files: Sequence[str], *, names: Sequence[str]) -> None:
    """Put the table's rows in the place of those of `files` in concepts (N, K), whose columns are called `names`."""
    columns = [table.names.index(name) for name in names]
    rows = dict(zip(table.keys["file"], table.values))
    for position, name in enumerate(files):
        if name in rows:
            concepts[position] = rows[name][columns]


def shorten(lines: Iterable[str], *, limit: int = 5) -> list[str]:
    """The first few lines of one kind, and how many more there are."""
    lines = list(lines)
    return lines if len(lines) <= limit else [*lines[:limit], f"... and {len(lines) - limit} more like the last line"]


def _strangers(table: ConceptTable, known: set[str]) -> list[str]:
    strange = dict.fromkeys(name for name in table.keys["file"] if name not in known)
    return shorten(f"{table.path}: {name} is no image here; remove the row" for name in strange)


def _endings(files: Sequence[str]) -> dict[str, list[str]]:
    """What a path ends with, below any of its folders -> the paths that do."""
    found: dict[str, list[str]] = {}
    for name in files:
        parts = name.split("/")
        for begin in range(1, len(parts)):
            found.setdefault("/".join(parts[begin:]), []).append(name)
    return found


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of every line of a CSV file that is not blank.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [(number, row) for number, row in enumerate(csv.reader(file), 1) if any(map(str.strip, row))]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); give a CSV file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; save it as comma-separated UTF-8 text") from None
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); save it as comma-separated UTF-8 text") from None


def _header_problems(path: Path, header: list[str], keys: Sequence[str]) -> list[str]:
    if not header:
        return [f"{path}: is empty, no column {' or '.join(keys)}; give a line of names and the rows below"]
    separators = [name for sign, name in ((";", "';'"), ("\t", "tabs")) if len(header) == 1 and sign in header[0]]
    if separators:
        return [f"{path}: columns are separated by {separators[0]}; save it as comma-separated text"]
    if "" in header:
        return [f"{path}: column {header.index('') + 1} has no name; name it or remove it"]
    if not set(keys) & set(header):
        return [f"{path}: the first line has no column {' or '.join(keys)}; name the column that says whose row it is"]
    if not [name for name in header if name not in keys]:
        return [f"{path}: no concept columns; add one column for each concept"]
    doubled = sorted({name for name in header if header.count(name) > 1})
    return [f"{path}: column {name!r} stands there twice; rename one" for name in doubled]


def _duplicates(table: ConceptTable) -> list[str]:
    found = []
    for key, column in table.keys.items():
        doubled = sorted({name for name in column if column.count(name) > 1}) if len(set(column)) < len(column) else []
        found += [f"{table.path}: {key} {name!r} has several rows; keep one" for name in doubled]
    return shorten(found)


def _near(name: str, valid: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(valid), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
