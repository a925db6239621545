"""The two pictures that most concept metrics need."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def axes(ax: Any) -> Any:
    """The given axes, or new ones."""
    import matplotlib.pyplot as plt

    return ax if ax is not None else plt.subplots(layout="constrained")[1]


def bars(values: Tensor, names: Sequence[str], *, label: str, ax: Any = None) -> tuple[Any, Any]:
    """One horizontal bar a name, the first on top."""
    ax = axes(ax)
    ax.barh(range(len(names)), values.tolist(), color="tab:blue")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel(label)
    return ax.figure, ax


def curve(
    x: Sequence[float], y: Tensor, *, labels: tuple[str, str], spread: Tensor | None = None, ax: Any = None
) -> tuple[Any, Any]:
    """A line through points, with a band of one standard deviation where `spread` is given; labels of x and y."""
    ax = axes(ax)
    ax.plot(x, y.tolist(), marker="o", color="tab:blue")
    if spread is not None:
        ax.fill_between(x, (y - spread).tolist(), (y + spread).tolist(), color="tab:blue", alpha=0.2)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    return ax.figure, ax
