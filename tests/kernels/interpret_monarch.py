"""The Monarch products in the interpreter, forward and backward, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.monarch import reference
from zoo.kernels.monarch import triton as kernels

SHAPES = [
    (1, (1, 1, 1), (1, 1, 1)),
    (7, (4, 10, 6), (8, 5, 5)),
    (70, (2, 33, 65), (3, 7, 22)),
    (0, (2, 2, 2), (2, 2, 2)),
]


@pytest.mark.parametrize(("batch", "first", "second"), SHAPES)
def test_forward_and_backward(batch, first, second):
    torch.manual_seed(0)
    x, w1, w2 = torch.randn(batch, first[0] * first[2]), torch.randn(first), torch.randn(second)
    dy = torch.randn(batch, second[0] * second[1])
    with GuardBands() as guard:
        given = [guard.input(value) for value in (x, w1, w2)]
        y, h = kernels.forward(*given)
        found = kernels.backward(guard.input(dy), given[0], h, *given[1:])
        guard.check(y, h, *found)
    wide = [value.double().requires_grad_() for value in (x, w1, w2)]
    want = reference.monarch(*wide)
    close(y, want, tolerance=5e-6)
    for got, expected in zip(found, torch.autograd.grad(want, wide, dy.double())):
        close(got, expected, tolerance=5e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 132])
def test_gradients_of_weights_in_parts(count, monkeypatch):
    """Whatever the number of processors, and where the rows do not divide into parts."""
    torch.manual_seed(0)
    monkeypatch.setattr(kernels, "processors", lambda device: count)
    a, b, like = torch.randn(3, 5, 300), torch.randn(3, 300, 7), torch.empty(3, 5, 7)
    with GuardBands() as guard:
        found = kernels.summed_product(guard.input(a), guard.input(b), like)
        guard.check(found)
    close(found, a @ b, tolerance=5e-6)
