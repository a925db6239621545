"""Tables of numbers from CSV and npz files."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.data.concept_tables import shorten
from zoo.data.errors import DataError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""Cells that count as missing, in any case."""
MAX_TEXTS = 50
"""Different texts that a column may hold before it is taken for a mistake."""


@dataclass(frozen=True)
class Table:
    """rows (N, D) and targets (N,) float64, NaN where missing; names of the D columns; test (N,) bool."""

    rows: np.ndarray
    targets: np.ndarray
    names: tuple[str, ...]
    test: np.ndarray


def read_npz(path: Path, *, target: str, fold: int | None) -> Table:
    """`x` (N, D), the array called `target` (N,), and column `fold` of `test_mask` (N, folds) as the test split."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as npz ({error}); write it with numpy.savez") from None
    wanted = ["x", target, *(["test_mask"] if fold is not None else [])]
    if missing := [name for name in wanted if name not in arrays]:
        raise DataError(f"{path}: no array {' or '.join(missing)}; it has {', '.join(arrays)}")
    rows, test = arrays["x"], np.zeros(len(arrays["x"]), dtype=bool)
    if rows.ndim != 2 or arrays[target].shape != rows.shape[:1]:
        raise DataError(f"{path}: x is {rows.shape} and {target} {arrays[target].shape}; store (N, D) and (N,)")
    if fold is not None:
        folds = arrays["test_mask"].shape[1]
        if not 0 <= fold < folds:
            raise DataError(f"{path}: data.fold={fold}; give 0 to {folds - 1}")
        test = arrays["test_mask"][:, fold].astype(bool)
    names = tuple(f"x{index}" for index in range(rows.shape[1]))
    return Table(rows.astype(np.float64), arrays[target].astype(np.float64), names, test)


def read_csv(path: Path, *, target: str, drop: Sequence[str], skip_lines: int) -> Table:
    """All columns but `target` and `drop` as features; a text column becomes a 0/1 column for each of its values.

    Raises:
        DataError: a column that is not there, ragged rows, a target of text, a text column of very many values.
    """
    header, lines = _read_lines(path, skip_lines)
    problems = [
        f"{path}: no column {name!r}; the header (line {skip_lines + 1}) has {', '.join(header)}"
        for name in [target, *drop]
        if name not in header
    ]
    if problems:
        raise DataError(*problems)
    columns = dict(zip(header, zip(*lines)))
    targets = _numbers(columns[target])
    if targets is None:
        problems.append(f"{path}: the target {target!r} holds text; choose a column of numbers")
    features: dict[str, np.ndarray] = {}
    for name in header:
        if name == target or name in drop:
            continue
        numbers, texts = _numbers(columns[name]), sorted(set(columns[name]))
        if numbers is not None:
            features[name] = numbers
        elif len(texts) <= MAX_TEXTS:
            cells = np.array(columns[name])
            features |= {f"{name}={text}": (cells == text).astype(np.float64) for text in texts}
        else:
            problems.append(f"{path}: column {name!r} holds {len(texts)} different texts; name it in data.drop")
    if not features and not problems:
        problems.append(f"{path}: no column is left as a feature; leave one out of data.drop")
    if problems or targets is None:
        raise DataError(*problems)
    return Table(np.stack(list(features.values()), axis=1), targets, tuple(features), np.zeros(len(lines), dtype=bool))


def _read_lines(path: Path, skip_lines: int) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for _ in range(skip_lines):
                next(file, None)
            lines = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); save it as comma-separated UTF-8 text") from None
    if len(lines) < 2:
        raise DataError(f"{path}: no rows below a header; is data.skip_lines={skip_lines} right?")
    width = len(lines[0])
    ragged = [number for number, row in enumerate(lines, skip_lines + 1) if len(row) != width]
    if ragged:
        advice = "mend them, or skip lines before the header with data.skip_lines"
        raise DataError(*shorten(f"{path} line {n}: not the header's {width} cells; {advice}" for n in ragged))
    return lines[0], lines[1:]


def _numbers(cells: Sequence[str]) -> np.ndarray | None:
    """(N,) float64 with NaN where missing, or None if a cell is text."""
    try:
        return np.array([float("nan") if cell.lower() in MISSING else float(cell) for cell in cells])
    except ValueError:
        return None
