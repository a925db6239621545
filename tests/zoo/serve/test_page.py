"""Words of the page; the page itself is driven in a browser by tests/journeys/test_serve.py."""

from types import SimpleNamespace

import pytest

pytest.importorskip("nicegui", reason="needs the extra demo: pip install 'bottleneck-zoo[demo]'")

from zoo.serve.page import changes


def test_what_is_there_comes_first():
    said = changes(SimpleNamespace(corrections={"wing_red": 0.0, "eye::blue": 1.0, "beak": 0.3}))
    assert said == "eye blue, beak 30%, no wing red"


def test_many_corrections_are_counted():
    said = changes(SimpleNamespace(corrections={f"c{index}": 0.0 for index in range(7)}))
    assert said == "no c0, no c1, no c2, no c3 and 3 more"
    assert changes(SimpleNamespace(corrections={})) == ""
