"""The plot of a sweep: the headline figure against one swept word, a line for each value of the others.

Several seeds are repetitions: their mean, with bars of one standard deviation.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zoo.figures import Figure, matplotlib, new_axes, plt
from zoo.files import replacing
from zoo.lettering import lettering
from zoo.sweep import Value

Point = tuple[list[Value], float]
"""Values of the swept keys, and what was measured."""


def draw(path: Path, keys: list[str], points: list[Point], measure: str) -> None:
    letters = lettering(str(value) for values, _ in points for value in values)
    with matplotlib.rc_context({"font.family": letters.families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = _draw(keys, points, measure, letters)
        with replacing(path) as beside:
            figure.savefig(beside, format="png", dpi=150, bbox_inches="tight")
    plt.close(figure)


def _draw(keys: list[str], points: list[Point], measure: str, written: Callable[[str], str]) -> Figure:
    columns = {key: list(dict.fromkeys(values[i] for values, _ in points)) for i, key in enumerate(keys)}
    key = axis_key(columns)
    axis = sorted(columns[key], key=_order) if is_numeric(columns[key]) else columns[key]
    places, logarithmic = positions(axis)
    figure, axes = new_axes(6.0, 3.8)
    for label, line in lines(keys, points, key).items():
        shown = [value for value in axis if value in line]
        mean = [np.mean(line[value]) for value in shown]
        spread = [np.std(line[value], ddof=1) if len(line[value]) > 1 else 0.0 for value in shown]
        x = [places[axis.index(value)] for value in shown]
        style: dict[str, Any] = {"marker": "o", "label": written(label)} | (
            {} if is_numeric(axis) else {"linestyle": "none"}
        )
        axes.errorbar(x, mean, yerr=spread if any(spread) else None, capsize=3, **style)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xticks(places, [written(_name(key, value)) for value in axis])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(key)
    axes.set_ylabel(measure)
    if len(keys) > 1 and axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=9)
    return figure


def axis_key(columns: dict[str, list[Value]]) -> str:
    """The key along the axis: numbers before names, more values before fewer, seeds last.

    >>> axis_key({"model": ["heba", "apt", "labo"], "data.shots": [1, None]})
    'data.shots'
    """
    return max(columns, key=lambda key: (key != "seed", is_numeric(columns[key]), len(columns[key])))


def is_numeric(values: list[Value]) -> bool:
    """Numbers, and perhaps null."""
    return all(isinstance(value, int | float | None) for value in values) and values != [None]


def positions(axis: list[Value]) -> tuple[list[float], bool]:
    """Where the values stand, and whether on a logarithmic axis; null one step right of the largest number.

    >>> positions([1, 2, 4, 16, None])
    ([1.0, 2.0, 4.0, 16.0, 64.0], True)
    >>> positions(["heba", "apt"])
    ([0.0, 1.0], False)
    """
    if not is_numeric(axis):
        return [float(place) for place in range(len(axis))], False
    numbers = [float(value) for value in axis if isinstance(value, int | float)]
    logarithmic = len(numbers) > 1 and numbers[0] > 0 and numbers[-1] >= 10 * numbers[0]
    if None in axis:
        last, before = numbers[-1], numbers[-2] if len(numbers) > 1 else 0.0
        numbers.append(last * last / before if logarithmic else 2 * last - before)
    return numbers, logarithmic


def lines(keys: list[str], points: list[Point], axis: str) -> dict[str, dict[Value, list[float]]]:
    """label -> value on the axis -> figures, one for each seed.

    >>> lines(["model", "seed", "lr"], [(["cbm", 0, 1], 0.5), (["cbm", 1, 1], 0.75)], "lr")
    {'model=cbm': {1: [0.5, 0.75]}}
    """
    found: dict[str, dict[Value, list[float]]] = {}
    for values, figure in points:
        at = dict(zip(keys, values))
        label = ", ".join(f"{key}={_name(key, at[key])}" for key in keys if key not in (axis, "seed"))
        found.setdefault(label, {}).setdefault(at[axis], []).append(figure)
    return found


def _order(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else float("inf")


def _name(key: str, value: Value) -> str:
    """Of data, null takes all."""
    if value is None:
        return "all" if key.startswith("data.") else "null"
    return f"{value:g}" if isinstance(value, float) else str(value)
