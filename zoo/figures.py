"""The pictures of a report, as SVG text that stands inside the page."""

import io
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from zoo.lettering import as_written

if TYPE_CHECKING:
    from zoo.occlusion import Occlusion

INK, ACCENT, SECOND, PALE = "#22303c", "#2a6f97", "#e07a5f", "#d9e2ea"


def svg(figure: Figure) -> str:
    """The figure as an <svg> element; its words stay text, which a browser writes in any script."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(text, format="svg", bbox_inches="tight")
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def new_axes(width: float = 5.2, height: float = 3.2) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(figsize=(width, height))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    return figure, axes


def learning_curves(rows: list[dict[str, Any]], lines: Mapping[str, str], *, label: str) -> str:
    """Columns of metrics.csv, with what to call each, over the epochs of all stages."""
    figure, axes = new_axes()
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    values = []
    for (name, called), colour in zip(lines.items(), (ACCENT, SECOND, INK, "#81b29a")):
        legend: str | None = called
        for stage in stages:
            points = [(i + 1, row[name]) for i, row in enumerate(rows) if name in row and row["stage"] == stage]
            if points:
                axes.plot(*zip(*points), color=colour, label=legend, marker="o" if len(points) < 3 else None)
                legend = None
            values += [value for _, value in points]
    first = {stage: next(i for i, row in enumerate(rows) if row["stage"] == stage) for stage in stages}
    for stage in stages if len(stages) > 1 else ():
        axes.axvline(first[stage] + 0.5, color=PALE, zorder=0)
        axes.text(first[stage] + 0.55, 1.01, stage, transform=axes.get_xaxis_transform(), fontsize=8)
    # losses of different stages differ by orders of magnitude
    if len(stages) > 1 and values and 0 < 1000 * min(values) < max(values):
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9)
    return svg(figure)


def bars(
    names: Sequence[str], values: Sequence[float], *, label: str, limit: float | None = None, numbers: str = ""
) -> str:
    """Horizontal bars, one a name. numbers: format of the values that are written beside them, on a wider picture."""
    figure, axes = new_axes(8 if numbers else 5.2, 0.6 + 0.26 * len(names))
    position = np.arange(len(names))
    drawn = axes.barh(position, values, color=[ACCENT if value >= 0 else SECOND for value in values], height=0.7)
    axes.set_yticks(position, [*map(as_written, names)])
    axes.invert_yaxis()
    axes.set_xlabel(label)
    if limit is not None:
        axes.set_xlim(0, limit)
    if numbers:
        axes.bar_label(drawn, [numbers.format(value) for value in values], padding=3, fontsize=9)
    return svg(figure)


def correction_curves(curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Accuracy over the number of concept groups that were set, a line for each way of setting them."""
    figure, axes = new_axes()
    for (name, curve), colour, mark in zip(curves.items(), (ACCENT, INK, SECOND), ("o", "s", "x")):
        axes.plot(*zip(*curve), color=colour, marker=mark, label=name)
    axes.set_xlabel("groups of concepts set by a person")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("accuracy")
    axes.set_ylim(min(0.5, *(value for curve in curves.values() for _, value in curve)) - 0.02, 1.02)
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return svg(figure)


def class_charts(
    matrix: np.ndarray, classes: Sequence[str], concepts: Sequence[str], *, label: str, shown: int = 6, columns: int = 3
) -> str:
    """A small bar chart for each class (rows of the matrix): the concepts with the largest magnitudes, on one scale."""
    lines = -(-len(classes) // columns)
    shown = min(shown, len(concepts))
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(3.9 * columns, (0.7 + 0.2 * shown) * lines),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    bound = 1.05 * float(np.abs(matrix).max()) or 1.0
    for axes, name, row in zip(grid.flat, classes, matrix):
        chosen = np.argsort(-np.abs(row), kind="stable")[:shown]
        chosen = chosen[np.argsort(-row[chosen], kind="stable")]
        axes.barh(range(shown), row[chosen], color=[ACCENT if row[k] >= 0 else SECOND for k in chosen], height=0.7)
        axes.set_yticks(range(shown), [as_written(concepts[k]) for k in chosen], fontsize=8)
        axes.invert_yaxis()
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlim(-bound if matrix.min() < 0 else 0, bound)
        axes.set_title(as_written(name), fontsize=10, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", labelsize=8)
    for axes in grid.flat[len(classes) :]:
        axes.set_axis_off()
    figure.supxlabel(label, fontsize=9)
    return svg(figure)


def confusion(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Rows are the true classes, columns the predicted ones; counts."""
    size = min(8.0, 2.0 + 0.35 * len(names))
    figure, axes = plt.subplots(figsize=(size, size))
    axes.imshow(matrix / matrix.sum(1, keepdims=True).clip(min=1), cmap="Blues", vmin=0, vmax=1)
    for set_ticks, turned in ((axes.set_xticks, 90), (axes.set_yticks, 0)):
        set_ticks(range(len(names)), [*map(as_written, names)], rotation=turned, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(names) <= 20:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                dark = count > matrix[row].sum() / 2
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color="w" if dark else INK)
    return svg(figure)


def weights(matrix: np.ndarray, classes: Sequence[str], concepts: Sequence[str]) -> str:
    """How much every concept (columns) speaks for every class (rows)."""
    figure, axes = plt.subplots(figsize=(1.8 + 0.34 * len(concepts), 1.6 + 0.28 * len(classes)))
    bound = float(np.abs(matrix).max()) or 1.0
    image = axes.imshow(matrix, cmap="RdBu", vmin=-bound, vmax=bound, aspect="auto")
    axes.set_xticks(range(len(concepts)), [*map(as_written, concepts)], rotation=90, fontsize=8)
    axes.set_yticks(range(len(classes)), [*map(as_written, classes)], fontsize=8)
    figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, label="weight: against (red), for (blue)")
    return svg(figure)


def plane(rows: list[dict[str, Any]]) -> str:
    """The information plane: a point an epoch, I(X;Z) to the right, I(Z;Y) upwards, in bits."""
    points = [
        (row["val/izx_bits"], row["val/izy_bits"]) for row in rows if "val/izx_bits" in row and "val/izy_bits" in row
    ]
    figure, axes = new_axes()
    x, y = zip(*points)
    axes.plot(x, y, color=PALE, zorder=0)
    dots = axes.scatter(x, y, c=range(1, len(points) + 1), cmap="viridis", s=24)
    axes.set_xlabel("I(X;Z), upper bound (bits)")
    axes.set_ylabel("I(Z;Y), lower bound (bits)")
    figure.colorbar(dots, ax=axes, label="epoch", ticks=MaxNLocator(integer=True, min_n_ticks=1))
    return svg(figure)


def contributions(
    axes: Axes, names: Sequence[str], values: Sequence[float], *, changed: Mapping[int, str], shown: int = 15
) -> None:
    """The concepts that spoke most for (right) and against (left) the answer, below those that a person changed (which
    -> how), which bear a mark."""
    order = sorted(range(len(values)), key=lambda k: (k not in changed, -abs(values[k])))[: shown + len(changed)]
    chosen = [float(values[k]) for k in order]
    axes.barh(range(len(order)), chosen, color=[ACCENT if value >= 0 else SECOND for value in chosen], height=0.7)
    axes.plot(chosen[: len(changed)], range(len(changed)), linestyle="none", marker="D", color=INK)
    axes.set_yticks(range(len(order)), [f"{names[k]}  {changed[k]}" if k in changed else names[k] for k in order])
    for label in axes.get_yticklabels()[: len(changed)]:
        label.set_fontweight("bold")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.invert_yaxis()
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def occlusion(axes: Axes, pixels: np.ndarray, found: "Occlusion") -> None:
    """A faint image (uint8, (H, W, 3)) under the drops, each around the centre of its place, with their scale."""
    height, width = pixels.shape[:2]
    axes.imshow(pixels.mean(2), cmap="gray", vmin=-400, vmax=255, interpolation="nearest")
    drops = 100 * found.drops.numpy()
    bound = max(1.0, float(np.abs(drops).max()))
    down, right = (
        [0, *((one + two + patch) / 2 for one, two in pairwise(begins)), side]
        for begins, patch, side in zip((found.tops, found.lefts), found.patch, (height, width))
    )
    mesh = axes.pcolormesh(
        np.array(right) - 0.5, np.array(down) - 0.5, drops, cmap="RdBu", vmin=-bound, vmax=bound, alpha=0.6
    )
    axes.set_axis_off()
    scale = axes.figure.colorbar(mesh, ax=axes, fraction=0.046, pad=0.03)
    scale.set_label("points of probability lost without the place", color=INK)
    scale.ax.tick_params(colors=INK, labelsize=9)
    scale.outline.set_visible(False)
