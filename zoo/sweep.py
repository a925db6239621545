"""What a sweep leaves beside its runs: a table of what was swept and measured, and a plot.

    jobs (lists of words) -> the words that differ -> sweep.csv, rewritten after every run -> sweep.png at the end

A run that failed keeps its row, with the reason in place of figures.
"""

import csv
import io
import re
from pathlib import Path
from typing import Any

from zoo.files import write_text
from zoo.results import NESTED, headline
from zoo.runs import stamped_folder
from zoo.terminal import print_table

LAST = ("seconds", "run", "error")
Value = int | float | str | None
"""Of a swept word: null is None."""


class Sweep:
    """The results of a sweep's jobs, in a folder output_dir/sweeps/<date_time>."""

    def __init__(self, output_dir: str, jobs: list[list[str]]):
        self.keys, self.values = swept(jobs)
        self.folder = stamped_folder(output_dir, Path("sweeps"))
        self.results: list[dict[str, Any]] = []

    @property
    def table(self) -> Path:
        return self.folder / "sweep.csv"

    @property
    def plot(self) -> Path:
        return self.folder / "sweep.png"

    def add(self, result: dict[str, Any]) -> None:
        """The next job's result, as result.json holds it, or {"error": why there is none}."""
        self.results.append(result)
        rows = [
            dict(zip(self.keys, map(_word, values))) | flat(result) for values, result in zip(self.values, self.results)
        ]
        text = io.StringIO()
        names = dict.fromkeys(name for row in rows for name in row if name not in LAST)
        writer = csv.DictWriter(text, [*names, *LAST], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.table, text.getvalue())

    def draw(self) -> bool:
        """Write the plot; False where there is nothing to compare."""
        done = [(values, headline(result)) for values, result in zip(self.values, self.results) if "metrics" in result]
        measures = [measure for _, (measure, _) in done]
        points = [(values, value) for values, (measure, value) in done if measure == measures[0]]
        if len(points) < 2:
            return False
        from zoo.sweep_figure import draw

        draw(self.plot, self.keys, points, measures[0])
        return True

    def print(self) -> None:
        """The table as a person reads it: what was swept, the headline, and where each run lies."""
        rows = []
        for values, result in zip(self.values, self.results):
            if "metrics" in result:
                cells = [*headline(result), result["metrics"].get("acc_all_wrong"), result["run"]]
            else:
                cells = ["failed", None, None, result["error"]]
            rows.append([*map(_word, values), *cells])
        columns = [*self.keys, "measure", "value", "all concepts wrong", "run"]
        if all(row[-2] is None for row in rows):
            columns, rows = [*columns[:-2], "run"], [[*row[:-2], row[-1]] for row in rows]
        print_table(columns, rows, title="sweep")


def swept(jobs: list[list[str]]) -> tuple[list[str], list[list[Value]]]:
    """The keys whose values differ, and each job's values of them.

    >>> swept([["seed=0", "data.shots=1"], ["seed=0", "data.shots=null"]])
    (['data.shots'], [[1], [None]])
    """
    places = [place for place, words in enumerate(zip(*jobs)) if len(set(words)) > 1]
    keys = [jobs[0][place].partition("=")[0].lstrip("+") for place in places]
    return keys, [[_value(job[place].partition("=")[2]) for place in places] for job in jobs]


def flat(result: dict[str, Any]) -> dict[str, Any]:
    """A result as a row: test figures under their names, validation's under val/, then seconds, run and error.

    >>> flat({"metrics": {"acc": 0.5, "per_concept": {}}, "validation": {"acc": 0.25}, "seconds": 2, "run": "a/1"})
    {'acc': 0.5, 'val/acc': 0.25, 'seconds': 2, 'run': 'a/1'}
    """
    row = {name: value for name, value in result.get("metrics", {}).items() if name not in NESTED}
    row |= {f"val/{name}": value for name, value in result.get("validation", {}).items() if name not in NESTED}
    return row | {name: result[name] for name in LAST if name in result}


def _value(text: str) -> Value:
    if text == "null":
        return None
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def _word(value: Value) -> int | float | str:
    return "null" if value is None else value
