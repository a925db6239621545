"""The W8A8 kernels in the interpreter, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.quant_linear import quant_linear, quantize_weight, reference
from zoo.kernels.quant_linear.triton import launch


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 1, 1), (17, 33, 5), (70, 130, 67), (3, 4100, 2), (0, 8, 8)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kernel(rows, inner, columns, bias, dtype):
    torch.manual_seed(0)
    x = torch.randn(rows, inner).to(dtype)
    if rows > 1:
        x[0] = 0
    codes, scale = quantize_weight(torch.randn(columns, inner))
    b = torch.randn(columns).to(dtype) if bias else None
    with GuardBands() as guard:
        given = (guard.input(x), guard.input(codes), guard.input(scale), b if b is None else guard.input(b))
        y = launch(*given)
        guard.check(y)
    # on the CPU: a GPU divides by a number as it multiplies by its inverse, and a code at a half may go the other way
    want = reference.quant_linear(*(value if value is None else value.cpu() for value in (x, codes, scale, b)))
    close(y.cpu(), want, tolerance=2e-6 if dtype == torch.float32 else 1e-3)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("inner", [12, 4100])
def test_what_is_not_finite_stays_in_its_row(wrong, inner):
    """Also where it stands in another block than the largest value."""
    torch.manual_seed(0)
    x = torch.randn(3, inner)
    x[1, 0], x[1, -1] = wrong, 100.0
    codes, scale = quantize_weight(torch.randn(7, inner))
    y = quant_linear(x, codes, scale)
    assert y[1].isnan().all()
    close(y[::2].cpu(), reference.quant_linear(x[::2].cpu(), codes.cpu(), scale.cpu()), tolerance=2e-6)


@pytest.mark.parametrize("kinds", [(torch.float16, torch.float32), (torch.float32, torch.float64)], ids=str)
def test_scales_and_bias_may_have_another_dtype(kinds):
    torch.manual_seed(0)
    x, bias = torch.randn(5, 12).to(kinds[0]), torch.randn(7, dtype=kinds[1])
    codes, scale = quantize_weight(torch.randn(7, 12))
    with GuardBands() as guard:
        y = launch(guard.input(x), guard.input(codes), guard.input(scale.to(kinds[1])), guard.input(bias))
        guard.check(y)
    assert y.dtype == kinds[0]
    want = reference.quant_linear(x.cpu(), codes.cpu(), scale.cpu(), bias.cpu())
    close(y.cpu(), want, tolerance=2e-6 if kinds[0] == torch.float32 else 1e-3)
