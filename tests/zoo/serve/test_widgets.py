"""Numbers on the page."""

import pytest

pytest.importorskip("nicegui", reason="needs the extra demo: pip install 'bottleneck-zoo[demo]'")

from zoo.serve.widgets import percent, signed


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0%"), (0.001, "<1%"), (0.5, "50%"), (0.994, "99%"), (0.999, ">99%"), (1, "100%")]
)
def test_percent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (-0.004, "0"), (0.3, "+0.30"), (-12.345, "−12.35")])
def test_signed(value, text):
    assert signed(value) == text
