"""The W8A8 kernels in the interpreter, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.quant_linear import quantize_weight, reference
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
