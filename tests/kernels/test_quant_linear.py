"""W8A8 linear: exact integer sums, torchao's codes bit for bit, straight-through gradient, export, resources."""

import pytest
import torch
from torch import nn

from tests.golden.cases import cases
from tests.kernels.harness import check_compiled, check_dynamic, check_exported, check_onnx, close, interpreter_test
from zoo.kernels.quant_linear import LONGEST_SUM, _int_mm, quant_linear, quantize_weight, reference
from zoo.models.compression.quant_linear import QuantLinear, quantize_linears_

test_interpreter = interpreter_test("interpret_quant_linear.py")


def layer(inputs: int = 24, outputs: int = 10):
    torch.manual_seed(0)
    return *quantize_weight(torch.randn(outputs, inputs)), torch.randn(outputs)


@pytest.mark.parametrize("shape", [(7, 24), (2, 3, 24), (24,), (0, 24), (1, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equals_the_reference(shape, dtype):
    codes, scale, bias = layer()
    x = torch.randn(shape, dtype=dtype)
    y = quant_linear(x, codes, scale, bias.to(dtype))
    assert y.dtype == dtype
    close(y, reference.quant_linear(x, codes, scale, bias.to(dtype)))


def test_sums_are_exact_at_the_extremes():
    left = torch.full((3, 5000), -128, dtype=torch.int8)
    assert (_int_mm(left, left) == 5000 * 128 * 128).all()


def test_float_sums_are_exact_where_int_mm_is_not(monkeypatch):
    monkeypatch.setattr("zoo.kernels.quant_linear._int_mm_is_exact", lambda device: False)
    left, right = (torch.randint(-128, 128, (n, 3000), dtype=torch.int8) for n in (4, 6))
    assert torch.equal(_int_mm(left, right), (left.long() @ right.long().t()).int())


def test_the_longest_rows_are_exact_and_longer_ones_are_refused():
    """131,071 products of -128 and -128 are 2,147,467,264, the most below 2^31."""
    weight, scale = torch.full((1, 131_071), -128, dtype=torch.int8), torch.full((1,), 127.5)
    y = quant_linear(torch.full((1, 131_071), -1.0, dtype=torch.float64), weight, scale)
    assert y.item() == pytest.approx(2_147_467_264, rel=1e-12)
    assert LONGEST_SUM == 131_071
    with pytest.raises(ValueError, match="rows of 131072 codes overflow int32, at most 131071"):
        quant_linear(torch.zeros(1, 131_072), torch.zeros(1, 131_072, dtype=torch.int8), scale)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_row(wrong):
    codes, scale, bias = layer()
    x = torch.randn(3, 24)
    x[1, 7] = wrong
    y = quant_linear(x, codes, scale, bias)
    assert y[1].isnan().all()
    close(y[::2], quant_linear(x[::2], codes, scale, bias))


def test_dtypes_may_differ():
    codes, scale, bias = layer()
    x = torch.randn(3, 24)
    want = quant_linear(x, codes, scale, bias)
    assert torch.equal(quant_linear(x, codes, scale.double(), bias.double()), want)
    y = quant_linear(x.bfloat16(), codes, scale, bias)
    assert y.dtype == torch.bfloat16
    close(y.float(), want, tolerance=2e-2)


def test_error_is_about_one_percent():
    weight, x = torch.randn(64, 256), torch.randn(100, 256)
    y = quant_linear(x, *quantize_weight(weight))
    exact = x @ weight.t()
    assert (y - exact).norm() / exact.norm() < 0.015


def test_rows_of_zeros_and_scaling():
    codes, scale, bias = layer()
    x = torch.randn(4, 24)
    x[1] = 0
    y = quant_linear(x, codes, scale, bias)
    assert torch.equal(y[1], bias)
    close(quant_linear(4 * x, codes, scale), 4 * quant_linear(x, codes, scale), tolerance=1e-6)


@pytest.mark.parametrize("case", [case for case in cases() if case.system == "torchao_ref"], ids=lambda case: case.name)
def test_codes_and_result_of_torchao(case):
    codes, scale = quantize_weight(case.param["weight"])
    assert torch.equal(codes, case.wanted["output/int8_dynamic_wq"])
    assert torch.equal(scale[:, None], case.wanted["output/int8_dynamic_wscale"])
    y = quant_linear(case.input["x"], codes, scale, case.param.get("bias"))
    close(y, case.wanted["output/y_int8_dynamic"], tolerance=1e-6)


def test_gradients_are_straight_through():
    codes, scale, bias = layer()
    x = torch.randn(5, 24, requires_grad=True)
    bias.requires_grad_()
    dy = torch.randn(5, 10)
    dx, dbias = torch.autograd.grad(quant_linear(x, codes, scale, bias), (x, bias), dy)
    close(dx, dy @ (codes.float() * scale[:, None]), tolerance=1e-6)
    close(dbias, dy.sum(0), tolerance=1e-6)


def test_operator_is_registered_soundly():
    codes, scale, bias = layer()
    torch.library.opcheck(torch.ops.zoo.quant_linear.default, (torch.randn(3, 24), codes, scale, bias))
    x = torch.randn(3, 24, requires_grad=True)
    torch.library.opcheck(torch.ops.zoo.quant_linear.default, (x, codes, scale, None))


def test_autocast():
    codes, scale, bias = layer()
    x = torch.randn(3, 24)
    with torch.autocast("cpu", torch.bfloat16):
        y = quant_linear(x, codes, scale, bias)
    assert y.dtype == torch.bfloat16
    close(y, quant_linear(x, codes, scale, bias).bfloat16())


def test_compile_and_export(tmp_path):
    codes, scale, bias = layer()
    x = torch.randn(3, 24)
    check_compiled(quant_linear, x, codes, scale, bias)
    others = (torch.randn(6, 24), codes, scale, bias), (torch.randn(4, 7), *layer(7, 9))
    check_dynamic(quant_linear, (x, codes, scale, bias), *others)
    program = check_exported(lambda x: quant_linear(x, codes, scale, bias), x)
    assert "aten._int_mm" in str(program.graph)
    check_onnx(lambda x: quant_linear(x, codes, scale, bias), torch.randn(2, 3, 24), path=tmp_path)


def test_modules():
    shared = nn.Linear(24, 24)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(24, 3, bias=False), nn.MultiheadAttention(8, 2)).eval()
    x = torch.randn(9, 24)
    want = model[:4](x)
    names = quantize_linears_(model)
    assert names == ["0", "2", "3"]
    assert model[0] is model[2]
    assert isinstance(model[0], QuantLinear)
    close(model[:4](x), want, tolerance=0.04)
    again = QuantLinear(24, 3, bias=False)
    again.load_state_dict(model[3].state_dict())
    assert torch.equal(again(x), model[3](x))
    assert model[0].weight.element_size() == 1


def test_errors():
    codes, scale, bias = layer()
    with pytest.raises(ValueError, match="expected int8"):
        quant_linear(torch.randn(2, 24), codes.float(), scale)
    with pytest.raises(ValueError, match="x has 23 features"):
        quant_linear(torch.randn(2, 23), codes, scale)
    with pytest.raises(ValueError, match=r"shape \(10,\)"):
        quant_linear(torch.randn(2, 24), codes, scale[:-1], bias)
    with pytest.raises(ValueError, match="x has 0 features, the weight expects 24"):
        quant_linear(torch.tensor(1.0), codes, scale)
    with pytest.raises(ValueError, match=r"x, weight_scale and bias are torch\.int64, torch\.float32, not floating"):
        quant_linear(torch.ones(2, 24, dtype=torch.int64), codes, scale)
    with pytest.raises(ValueError, match=r"torch\.float32, torch\.float32, torch\.int32, not floating"):
        quant_linear(torch.ones(2, 24), codes, scale, bias.int())
    with pytest.raises(ValueError, match="expects 0, at least 1"):
        quant_linear(torch.ones(2, 0), codes[:, :0], scale)
    with pytest.raises(ValueError, match=r"quantize_weight: torch.float32 \(10, 0\)"):
        quantize_weight(torch.ones(10, 0))
    with pytest.raises(ValueError, match=r"quantize_weight: torch.int64 \(10, 3\)"):
        quantize_weight(torch.ones(10, 3, dtype=torch.int64))
