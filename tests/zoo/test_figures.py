"""What the pictures of a report say."""

import re
from html import unescape

import matplotlib
import numpy as np
import pytest

from zoo import figures
from zoo.lettering import lettering


@pytest.mark.parametrize("epochs", [1, 2, 3, 25])
def test_the_information_plane_counts_whole_epochs(epochs):
    rows = [{"val/izx_bits": 0.5 * epoch, "val/izy_bits": 0.1 * epoch} for epoch in range(epochs)]
    drawn = figures.plane(rows)
    written = re.findall(r"<text[^>]*>(.*?)</text>", drawn)
    bar = written[written.index("I(Z;Y), lower bound (bits)") + 1 : -1]
    assert written[-1] == "epoch"
    assert bar
    assert all(label.isdecimal() and 1 <= int(label) <= epochs for label in bar)


NAMES = ["\u5706\u5f62", "\u0645\u0631\u0628\u0639", "\U0001f534 dot", "$5 < $6", "$\\nothing$"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.bars(NAMES, range(5), label="x"),
        lambda: figures.confusion(np.eye(5), NAMES),
        lambda: figures.weights(np.eye(5), NAMES, NAMES),
        lambda: figures.class_charts(np.eye(5), NAMES, NAMES, label="x"),
    ],
)
def test_names_in_any_script_are_text_that_a_browser_writes(draw, recwarn):
    drawn = unescape(draw())
    assert all(f">{name}</text>" in drawn for name in NAMES)
    assert not recwarn.list


def test_installed_fonts_are_used_where_they_help(monkeypatch):
    assert lettering(["upper_loop", "\u0645", "a\nb"]).families == matplotlib.rcParams["font.family"]
    monkeypatch.setattr("zoo.lettering._installed", lambda: {"A": "a", "B": "b", "C": "c"})
    letters = {"a": "\u5706", "b": "\u5706\u5f62", "c": "\u0e01"}
    monkeypatch.setattr("zoo.lettering._known", lambda path, wanted: wanted & set(letters.get(path, "red ")))
    found = lettering(["red \u5706\u5f62", "\U0001f534"])
    assert found.families == [*matplotlib.rcParams["font.family"], "B"]
    assert found.absent == {"\U0001f534"}
    assert found("\u5706\U0001f534") == "\u5706[large red circle]"


def test_every_installed_family_can_be_asked():
    found = lettering(["\u5706\U0010ffff\U0001f534"])
    assert found.absent <= {"\u5706", "\U0001f534"}
