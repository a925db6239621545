"""The rational kernels in the interpreter, forward and backward, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.rational import rational, reference
from zoo.kernels.rational import triton as kernels


@pytest.mark.parametrize(("rows", "dim", "groups"), [(1, 1, 1), (37, 12, 4), (5, 600, 2), (300, 24, 1), (0, 8, 2)])
@pytest.mark.parametrize("orders", [(5, 4), (3, 2), (7, 8)])
def test_forward_and_backward(rows, dim, groups, orders):
    torch.manual_seed(0)
    x, dy = torch.randn(rows, dim), torch.randn(rows, dim)
    x.view(-1)[:1] = 0
    numerator, denominator = torch.randn(groups, orders[0] + 1), torch.randn(groups, orders[1])
    denominator[0, 0] = 0
    with GuardBands() as guard:
        given = [guard.input(value) for value in (dy, x, numerator, denominator)]
        y = kernels.forward(*given[1:])
        found = kernels.backward(*given)
        guard.check(y, *found)
    wide = [value.double().requires_grad_() for value in (x, numerator, denominator)]
    want = reference.rational(*wide)
    close(y, want, tolerance=2e-6)
    for got, expected in zip(found, torch.autograd.grad(want, wide, dy.double())):
        close(got, expected, tolerance=1e-5)


def test_the_operator_may_have_one_group():
    """Whose coefficients' gradients must not share memory."""
    given = [value.requires_grad_() for value in (torch.randn(5, 7), torch.randn(1, 6), torch.randn(1, 4))]
    found = torch.autograd.grad(rational(*given).sum(), given)
    for got, expected in zip(found, torch.autograd.grad(reference.rational(*given).sum(), given)):
        close(got, expected, tolerance=1e-5)


@pytest.mark.parametrize("orders", [(7, 8), (8, 2), (2, 9)], ids=str)
def test_more_coefficients_than_the_kernel_was_compiled_for_go_to_aten(orders, monkeypatch):
    taken = []
    monkeypatch.setattr(kernels, "forward", lambda x, *_: taken.append("forward") or x.clone())
    rational(torch.randn(5, 8), torch.randn(2, orders[0] + 1), torch.randn(2, orders[1]))
    assert bool(taken) == (orders == (7, 8))
