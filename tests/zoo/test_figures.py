"""What the pictures of a report say."""

import re

import pytest

from zoo import figures


@pytest.mark.parametrize("epochs", [1, 2, 3, 25])
def test_the_information_plane_counts_whole_epochs(epochs):
    rows = [{"val/izx_bits": 0.5 * epoch, "val/izy_bits": 0.1 * epoch} for epoch in range(epochs)]
    drawn = figures.plane(rows)
    written = re.findall(r"<!-- (.*?) -->", drawn)
    bar = written[written.index("I(Z;Y), lower bound (bits)") + 1 : -1]
    assert written[-1] == "epoch"
    assert bar
    assert all(label.isdecimal() and 1 <= int(label) <= epochs for label in bar)
