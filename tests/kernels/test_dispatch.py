"""Which versions of Triton run the kernels, and what is said of those that do not."""

import pytest

from zoo.kernels.dispatch import triton_problem


@pytest.mark.parametrize("triton", ["3.6.0", "3.8.0+git1a2b", "3.9.0", "4.0.0"])
def test_versions_that_run(triton):
    assert triton_problem(triton, "2.4.6", interpreted=False) is None
    assert triton_problem(triton, "2.2.0", interpreted=True) is None


@pytest.mark.parametrize(
    ("triton", "numpy", "says"),
    [
        (None, "2.4.6", "triton is not installed"),
        ("3.5.1", "2.4.6", "triton 3.5.1 is too old: 3.6 or newer is needed"),
        ("3.6.0", "2.4.6", "numpy < 2.4 or triton 3.7 is needed"),
    ],
)
def test_others_are_named_in_one_line(triton, numpy, says):
    problem = triton_problem(triton, numpy, interpreted=True)
    assert problem is not None
    assert says in problem
    assert "\n" not in problem
