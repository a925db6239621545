"""The group-rational function: parity, special coefficients, gradients, registration, export, resources."""

import pytest
import torch

from tests.golden.cases import Case, adapter
from tests.kernels.harness import check_compiled, check_dynamic, check_exported, check_onnx, close, interpreter_test
from zoo.kernels.rational import aten, rational, reference

test_interpreter = interpreter_test("interpret_rational.py")


@adapter("rational", "rational", repeats=("batch", "dim", "groups", "length", "modes", "order"))
def rational_case(case: Case) -> dict:
    variables = {f"grad/{name}": case.input[name].requires_grad_() for name in ("x", "numerator", "denominator")}
    y = rational(*variables.values())
    result = {"output/y": y, **case.gradients((y * case.input["dy"]).sum(), variables)}
    return result | {f"{key}_upstream_fp32": value for key, value in result.items()}


@adapter("kat", "group_rational", repeats=("denominator_coefficients", "groups", "numerator_coefficients"))
def group_rational(case: Case) -> dict:
    x = case.input["x"].requires_grad_()
    numerator, denominator = (case.param[name].requires_grad_() for name in ("numerator", "denominator"))
    y = rational(x, numerator, denominator)
    variables = {"grad/x": x, "grad/numerator": numerator, "grad/denominator": denominator}
    return {"output/y": y, **case.gradients((y * case.input["grad_output"]).sum(), variables)}


def inputs(groups=3, dim=12, dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(5, 7, dim, dtype=dtype)
    return x, torch.randn(groups, 6, dtype=dtype), torch.randn(groups, 4, dtype=dtype)


def test_gradients():
    given = [value.requires_grad_() for value in inputs(dtype=torch.float64)]
    assert torch.autograd.gradcheck(rational, given)
    assert torch.autograd.gradcheck(reference.rational, given)


def test_blocks_equal_the_reference(monkeypatch):
    monkeypatch.setattr(aten, "BLOCK", 48)
    given = [value.requires_grad_() for value in inputs()]
    dy = torch.randn(5, 7, 12)
    want = reference.rational(*given)
    close(rational(*given), want)
    for got, expected in zip(
        aten.backward(dy, *(value.detach() for value in given)), torch.autograd.grad(want, given, dy)
    ):
        close(got, expected)


def test_special_coefficients():
    x, _, _ = inputs()
    x.requires_grad_()
    a, b = torch.zeros(3, 6), torch.zeros(3, 4, requires_grad=True)
    a[:, 1] = 1
    y = rational(x, a, b)
    assert torch.equal(y, x)
    dx, db = torch.autograd.grad(y.sum(), (x, b))
    assert torch.equal(dx, torch.ones_like(x))
    assert db.abs().min() > 0
    _, a, b = inputs()
    close(rational(x, 3 * a, b), 3 * rational(x, a, b), tolerance=1e-6)
    other = a.clone()
    other[0] = 0
    assert torch.equal(rational(x, other, b)[..., 4:], rational(x, a, b)[..., 4:])


@pytest.mark.parametrize("negative", [True, False])
def test_the_slope_at_both_zeros_is_that_of_positive_numbers(negative):
    x = torch.full((1, 3), -0.0 if negative else 0.0, requires_grad=True)
    _, a, b = inputs()
    dx = torch.autograd.grad(rational(x, a, b).sum(), x)[0]
    close(dx[0], a[:, 1] - a[:, 0] * b[:, 0].abs())


@pytest.mark.parametrize("orders", [(0, 4), (5, 0), (0, 0), (1, 1), (9, 8)], ids=str)
def test_other_orders(orders):
    x, *_ = inputs()
    given = [value.requires_grad_() for value in (x, torch.randn(3, orders[0] + 1), torch.randn(3, orders[1]))]
    found = torch.autograd.grad(rational(*given).sum(), given)
    wanted = torch.autograd.grad(reference.rational(*given).sum(), given, allow_unused=True)
    for got, want in zip(found, wanted):
        close(got, torch.zeros_like(got) if want is None else want)


def test_low_precision_is_computed_in_float32():
    x, a, b = inputs()
    y = rational(x.bfloat16(), a, b)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, rational(x.bfloat16().float(), a, b).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert rational(x, a, b).dtype == torch.float32


def test_operators_are_registered_soundly():
    given = [value.requires_grad_() for value in inputs()]
    torch.library.opcheck(torch.ops.zoo.rational.default, given)
    plain = [value.detach() for value in given]
    torch.library.opcheck(torch.ops.zoo.rational_backward.default, (torch.ones(5, 7, 12), *plain))


def test_compile_and_export(tmp_path):
    x, a, b = inputs()
    check_compiled(rational, x, a, b)
    check_dynamic(rational, (x, a, b), (torch.randn(4, 9, 12), a, b), (torch.randn(6, 8, 26), torch.randn(2, 6), b[:2]))
    check_exported(lambda x: rational(x, a, b), x)
    check_onnx(lambda x: rational(x, a, b), x, path=tmp_path)


def test_errors():
    x, a, b = inputs()
    with pytest.raises(ValueError, match="11 channels do not divide into 3 groups"):
        rational(x[..., 1:], a, b)
    with pytest.raises(ValueError, match="coefficients"):
        rational(x, a, b[:2])
    with pytest.raises(ValueError, match="coefficients"):
        rational(x, torch.tensor(1.0), b)
    with pytest.raises(ValueError, match=r"numerator \(0, 6\), expected \(G, m \+ 1\) with at least one group"):
        rational(x, a[:0], b[:0])
    with pytest.raises(ValueError, match=r"numerator \(3, 0\)"):
        rational(x, a[:, :0], b)
    with pytest.raises(ValueError, match="0 channels do not divide"):
        rational(x[..., :0], a, b)
