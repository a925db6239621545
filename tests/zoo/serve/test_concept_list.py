"""Names of concepts and groups as a person reads them."""

import pytest

pytest.importorskip("nicegui", reason="needs the extra demo: pip install 'bottleneck-zoo[demo]'")

from zoo.serve.concept_list import common_prefix, readable


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["has_bill_shape::dagger", "has_bill_shape::hooked"], "has_bill_shape::"),
        (["upper_loop", "upper_open_left"], "upper_"),
        (["upper", "upper_loop"], ""),
        (["a::x", "b::x"], ""),
    ],
)
def test_prefix_of_a_group(names, prefix):
    assert common_prefix(names) == prefix


def test_readable():
    assert readable("has_bill_shape::hooked_seabird") == "has bill shape hooked seabird"
