"""Small pieces of the page: text, bars, and elements that tests and screen readers find by name."""

import html
from collections.abc import Callable
from typing import Any

from nicegui import ui


def box(classes: str, *, tag: str = "div", **attributes: str) -> ui.element:
    """An element with classes and attributes (`data_test="x"` becomes data-test="x")."""
    element = ui.element(tag).classes(classes)
    for name, value in attributes.items():
        element.props[name.replace("_", "-")] = value
    return element


def text(content: str, classes: str = "", *, tag: str = "div", **attributes: str) -> ui.html:
    """Plain text, never read as HTML."""
    element = ui.html(tag=tag, sanitize=_escape).classes(classes)
    element.set_content(content)
    for name, value in attributes.items():
        element.props[name.replace("_", "-")] = value
    return element


def press(label: str, action: Callable[[], Any], classes: str = "", **attributes: str) -> ui.element:
    """A button of the page's own look."""
    with box(f"press {classes}", tag="button", type="button", **attributes) as button:
        text(label, tag="span")
    return button.on("click", action, args=[])


class ShareBar:
    """A bar from the left that fills a share of its track."""

    def __init__(self) -> None:
        with box("track"):
            self.fill = box("fill")

    def show(self, share: float) -> None:
        self.fill.style(f"width: {100 * share:.2f}%")


class SignedBar:
    """A bar to the right of the middle for what speaks for the answer, to the left for what speaks against it."""

    def __init__(self) -> None:
        with box("signed"):
            self.fill = box("fill")

    def show(self, value: float, largest: float) -> None:
        """value: drawn in relation to `largest`, which fills one half."""
        share = 50 * min(abs(value) / largest, 1.0) if largest else 0.0
        self.fill.classes(replace="fill for" if value >= 0 else "fill against")
        self.fill.style(f"width: {share:.2f}%; left: {50.0 if value >= 0 else 50 - share:.2f}%")


def percent(share: float) -> str:
    """A probability as a person reads it.

    >>> percent(0.9321), percent(0.0004), percent(0.99996)
    ('93%', '<1%', '>99%')
    """
    if 0 < share < 0.005 or 0.995 < share < 1:
        return "<1%" if share < 0.5 else ">99%"
    return f"{share:.0%}"


def signed(value: float) -> str:
    """A contribution with its sign.

    >>> signed(1.154), signed(-2.0), signed(-0.001)
    ('+1.15', '−2.00', '0')
    """
    return "0" if abs(value) < 0.005 else f"{value:+.2f}".replace("-", "−")


def _escape(content: str) -> str:
    return html.escape(content)
