"""Linear attentions: golden parity, the fast paths against the matrices of weights, limits, gradients, export."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.golden.cases import Case, adapter
from tests.kernels.harness import check_ahead, check_compiled, check_exported, interpreter_test
from zoo.kernels.attention import attention
from zoo.kernels.linear import (
    linear_attention,
    performer_features,
    scatterbrain_attention,
    simplified_linear_attention,
    taylor_attention,
    taylor_features,
)
from zoo.kernels.linear.op import linear_attention_backward_op, linear_attention_op
from zoo.kernels.linear.reference import attend, band, scatterbrain_weights, taylor_weights, weighted_mean, weights_of

test_interpreter = pytest.mark.slow(interpreter_test("interpret_linear.py", timeout=600))


@adapter("slab", "SimplifiedLinearAttention.swin", repeats=("dim", "kernel_size"))
@adapter("slab_sla", "SimplifiedLinearAttention.swin", repeats=("dim", "kernel_size"))
def golden_simplified(case: Case) -> dict[str, Tensor]:
    x = case.input["x"].clone().requires_grad_()
    weights = {key: value.clone().requires_grad_() for key, value in case.param.items()}
    heads = case.arguments["num_heads"]
    qkv = F.linear(x, weights["qkv.weight"], weights.get("qkv.bias"))
    q, k, v = qkv.unflatten(-1, (3, -1)).unbind(2)
    q, k, v = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (q, k + weights["positional_encoding"], v))
    kernel, its_bias = weights["dwc.weight"], weights["dwc.bias"]
    o = simplified_linear_attention(q, k, v, kernel, its_bias, grid=tuple(case.arguments["window_size"]))
    y = F.linear(o.transpose(1, 2).flatten(2), weights["proj.weight"], weights["proj.bias"])
    if "dy" not in case.input:
        return {"output/y": y}
    names = {"grad/x": x, **{f"grad/param/{key}": value for key, value in weights.items()}}
    return {"output/y": y, **case.gradients((y * case.input["dy"]).sum(), names)}


@adapter("based", "TaylorLinearAttention", repeats=("batch", "feature_dim", "head_dim", "heads", "length"))
def golden_taylor(case: Case) -> dict[str, Tensor]:
    q, k, v = (case.input[key].to(case.dtype).requires_grad_() for key in "qkv")
    phi_q, phi_k = taylor_features(q), taylor_features(k)
    result = {"output/phi_q": phi_q, "output/k_state": phi_k.sum(2), "output/kv_state": v.mT @ phi_k}
    for name, causal in (("causal", True), ("full", False)):
        y = taylor_attention(q, k, v, causal, eps=case.arguments["eps"])
        names = {f"grad/{key}_{name}": value for key, value in zip("qkv", (q, k, v))}
        result |= {f"output/y_{name}": y, **case.gradients((case.input["do"] * y).sum(), names)}
    return result


@adapter("scatterbrain", "scatterbrain_dense", repeats=("batch", "features", "head_dim", "heads", "length"))
def golden_scatterbrain(case: Case) -> dict[str, Tensor]:
    q, k, v = (case.input[key].to(case.dtype).requires_grad_() for key in "qkv")
    projection, scale = case.input["projection"].to(case.dtype), case.arguments["softmax_scale"]
    window = window_of(case.arguments["local_context"])
    y = scatterbrain_attention(q, k, v, projection, window=window, scale=scale)
    exact = (q @ k.mT * scale).softmax(-1)
    support = band(q.shape[2], k.shape[2], window)
    weights = (
        scatterbrain_weights(q, k, projection, support, scale=scale),
        scatterbrain_weights(q, k, projection, torch.zeros_like(support), scale=scale),
        exact * support,
    )
    errors = torch.stack([(w / w.sum(-1, keepdim=True) - exact).norm() for w in weights])
    names = {f"grad/{key}": value for key, value in zip("qkv", (q, k, v))}
    return {
        "output/y": y,
        "output/error_frobenius": errors,
        **case.gradients((y * case.input["do"]).sum(), names),
    }


@adapter("scatterbrain", "performer_features", repeats=("dim_heads", "nb_features"))
def golden_performer_features(case: Case) -> dict[str, Tensor]:
    projection, scale = case.param["projection_matrix"], case.arguments["softmax_temp"]
    q = performer_features(case.input["query"], projection, scale=scale, per_row=True)
    k = performer_features(case.input["key"], projection, scale=scale, per_row=False)
    return {
        "output/q_prime": q.prime,
        "output/q_log_scale": q.log_scale,
        "output/k_prime": k.prime,
        "output/k_log_scale": k.log_scale,
    }


@adapter("scatterbrain", "SBLocalAttention", repeats=("dim_heads", "nb_features"))
def golden_local(case: Case) -> dict[str, Tensor]:
    q, k, v = (case.input[key].transpose(1, 2) for key in ("query", "key", "value"))
    projection, scale = case.param["projection_matrix"], case.arguments["softmax_temp"]
    window = window_of(case.arguments["local_context"])
    support = band(q.shape[2], k.shape[2], window)
    weights = scatterbrain_weights(q, k, projection, support, scale=scale)
    return {
        "output/out": scatterbrain_attention(q, k, v, projection, window=window, scale=scale).transpose(1, 2),
        "output/attn": weights / weights.sum(-1, keepdim=True),
        "output/support": support,
    }


def window_of(context: int) -> tuple[int, int]:
    return context // 2, (context + 1) // 2 - 1


def qkv(tokens: int, channels: int = 6, values: int = 5, *, size: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 2, tokens, channels), (1, 2, tokens, channels), (1, 2, tokens, values))
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [(x * factor).requires_grad_() for x, factor in zip(made, (size, size, 1.0))]


def assert_same(got: Tensor, want: Tensor, variables: list[Tensor]) -> None:
    """Values and gradients, in float64."""
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(want)
    grads = [torch.autograd.grad((y * weight).sum(), variables, retain_graph=True) for y in (got, want)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_linear_attention_in_either_order_is_the_weighted_mean(tokens):
    variables = qkv(tokens)
    q, k, v = torch.relu(variables[0]), torch.relu(variables[1]), variables[2]
    assert_same(linear_attention(q, k, v), weighted_mean(q @ k.mT, v, eps=1e-6), variables)


@pytest.mark.parametrize("tokens", [1, 5, 131, 300])
def test_causal_linear_attention_is_the_weighted_mean(tokens):
    variables = qkv(tokens)
    q, k, v = torch.relu(variables[0]), torch.relu(variables[1]), variables[2]
    assert_same(linear_attention(q, k, v, True), weighted_mean((q @ k.mT).tril(), v, eps=1e-6), variables)


@pytest.mark.parametrize("kind", ["linear", "relu", "taylor"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_operator_has_the_gradient_of_its_formula(kind, causal):
    variables = qkv(12)
    q, k, v = (x.abs() if kind == "linear" else x for x in variables)
    y, z = linear_attention_op(q, k, v, kind, causal, 1e-2)
    weights = weights_of(q, k, kind=kind, causal=causal)
    torch.testing.assert_close(z, weights.sum(-1) + 1e-2)
    assert_same(y, weighted_mean(weights, v, eps=1e-2), variables)


@pytest.mark.parametrize("kind", ["linear", "relu", "taylor"])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients(kind, causal):
    given = [(x.detach().abs() + 0.1).requires_grad_() for x in qkv(5, 3, 2)]
    assert torch.autograd.gradcheck(lambda *x: linear_attention_op(*x, kind, causal, 1e-2)[0], given)
    assert torch.autograd.gradcheck(lambda *x: attend(*x, kind=kind, causal=causal, eps=1e-2)[0], given)


def test_operators_are_registered_soundly():
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (x.detach().abs().to(dtype).requires_grad_() for x in qkv(12))
        torch.library.opcheck(linear_attention_op, (q, k, v, "taylor", True, 1e-12))
    q, k, v = (x.detach() for x in (q, k, v))
    y, z = linear_attention_op(q, k, v, "relu", False, 1e-6)
    torch.library.opcheck(linear_attention_backward_op, (torch.randn_like(y), q, k, v, y, z, "relu", False))


def test_the_choice_between_tiles_and_states():
    from zoo.kernels.linear.launch import plan

    def parts(tokens: int, causal: bool) -> tuple[bool, bool]:
        return plan(tokens, tokens, 16, 64, kind="taylor", causal=causal)[:2]

    assert [parts(197, False), parts(197, True)] == [(True, False), (True, False)]
    assert [parts(4096, False), parts(4096, True)] == [(False, True), (True, True)]
    assert plan(100, 100, 64, 64, kind="relu", causal=False)[:2] == (False, True)
    assert plan(49, 49, 64, 64, kind="relu", causal=False)[:2] == (True, False)


def test_a_query_without_a_positive_entry_gets_the_convolution_alone():
    q, k, v = qkv(12, 4, 4)
    kernel = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    o = simplified_linear_attention(-q.abs(), k, v, kernel, grid=(3, 4))
    image = v[0, 1].T.unflatten(-1, (3, 4))
    want = F.conv2d(image[None], kernel, padding=1, groups=4)[0].flatten(1).T
    torch.testing.assert_close(o[0, 1], want)


@pytest.mark.parametrize("tokens", [1, 30, 64, 131])
@pytest.mark.parametrize("causal", [False, True])
def test_taylor_attention_is_the_weighted_mean(tokens, causal):
    variables = qkv(tokens, 3)
    q, k, v = variables
    assert_same(taylor_attention(q, k, v, causal), weighted_mean(taylor_weights(q, k, causal=causal), v), variables)


@pytest.mark.parametrize("folded", [False, True])
def test_taylor_features_have_the_polynomial_as_inner_product(folded):
    q, k, _ = qkv(7, 5)
    products = taylor_features(q, folded=folded) @ taylor_features(k, folded=folded).mT
    torch.testing.assert_close(products, taylor_weights(q, k))
    assert products.min() >= 0.5


@pytest.mark.parametrize("causal", [False, True])
def test_the_state_of_the_polynomial_is_exact_in_float64(causal):
    q, k, v = (x.detach() for x in qkv(300, 3))
    want = weighted_mean(taylor_weights(q, k, causal=causal), v)
    torch.testing.assert_close(taylor_attention(q, k, v, causal), want, atol=1e-12, rtol=1e-12)


def test_taylor_attention_nears_softmax_by_the_third_order():
    errors = []
    for size in (0.4, 0.2):
        q, k, v = qkv(20, 6, size=size)
        errors.append(float((taylor_attention(q, k, v) - attention(q, k, v)).detach().abs().max()))
    assert errors[1] < errors[0] / 2**5


@pytest.mark.parametrize("tokens", [1, 63, 64, 150])
@pytest.mark.parametrize("window", [(0, -1), (0, 0), (4, 3), (70, 0)])
def test_scatterbrain_is_the_weighted_mean(tokens, window):
    variables = qkv(tokens)
    q, k, v = variables
    projection = torch.randn(4, 6, dtype=torch.float64)
    weights = scatterbrain_weights(q, k, projection, band(tokens, tokens, window), scale=0.3)
    got = scatterbrain_attention(q, k, v, projection, window=window, scale=0.3)
    assert_same(got, weighted_mean(weights, v), variables)


def test_scatterbrain_with_a_full_window_is_softmax():
    variables = qkv(30)
    got = scatterbrain_attention(*variables, torch.randn(4, 6, dtype=torch.float64), window=(30, 30))
    assert_same(got, attention(*variables), variables)


def test_no_tokens_are_no_output():
    q, k, v = qkv(0)
    for name, function in FUNCTIONS.items():
        y = function(*(x.float() for x in (q, k, v)))
        assert y.shape == v.shape, name
        assert y.dtype is torch.float32, name
        assert [x.shape for x in torch.autograd.grad(y.sum(), (q, k, v))] == [x.shape for x in (q, k, v)], name


def test_scatterbrain_survives_scores_beyond_the_range_of_exp():
    q, k, v = (x.detach().float() for x in qkv(40, size=30.0))
    y = scatterbrain_attention(q, k, v, torch.randn(4, 6), window=(5, 5))
    assert y.isfinite().all()
    assert (y.abs() <= v.abs().max() + 1e-3).all()


def test_performer_weights_average_to_the_exponential():
    torch.manual_seed(0)
    q, k, _ = (x.detach() for x in qkv(6, size=0.7))
    nowhere = torch.zeros(6, 6, dtype=torch.bool)
    weights = scatterbrain_weights(q, k, torch.randn(200_000, 6, dtype=torch.float64), nowhere, scale=0.4)
    torch.testing.assert_close(weights, (q @ k.mT * 0.4).exp(), atol=0, rtol=0.05)


PROJECTION = torch.linspace(-1, 1, 12).view(2, 6)

FUNCTIONS = {
    "simplified": lambda q, k, v: linear_attention(q.relu(), k.relu(), v),
    "causal": lambda q, k, v: linear_attention(q.relu(), k.relu(), v, True),
    "taylor": taylor_attention,
    "causal taylor": lambda q, k, v: taylor_attention(q, k, v, True),
    "scatterbrain": lambda q, k, v: scatterbrain_attention(
        q, k, v, torch.linspace(-1, 1, 12).view(2, 6), window=(3, 2)
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiles_to_one_graph_and_exports_in_aten(name):
    given = [x.detach().float() for x in qkv(70)]
    check_compiled(FUNCTIONS[name], *given)
    check_exported(FUNCTIONS[name], *given)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_compiled_graph_takes_any_heads_and_tokens(name):
    torch._dynamo.reset()
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True, dynamic=True, backend="aot_eager")
    for heads, tokens in ((4, 12), (6, 140)):
        given = [torch.randn(2, heads, tokens, 6, requires_grad=True) for _ in "qkv"]
        got, want = compiled(*given), FUNCTIONS[name](*given)
        grads = [torch.autograd.grad(y.square().sum(), given) for y in (got, want)]
        torch.testing.assert_close((got, *grads[0]), (want, *grads[1]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_low_precision_sums_in_float32(name):
    given = [x.detach().bfloat16() for x in qkv(300)]
    want = FUNCTIONS[name](*(x.float() for x in given))
    got = FUNCTIONS[name](*given)
    assert got.dtype is torch.bfloat16
    torch.testing.assert_close(got.float(), want, atol=1e-2, rtol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(FUNCTIONS[name](*(x.float() for x in given)), want)


def test_wrong_arguments_are_named():
    q, k, v = qkv(12)
    with pytest.raises(ValueError, match="grid of 3 x 3 does not hold 12 tokens"):
        simplified_linear_attention(q, k, v, torch.zeros(5, 1, 3, 3), grid=(3, 3))
    for function in (taylor_attention, linear_attention):
        with pytest.raises(ValueError, match="as many queries as keys, not 11 and 12"):
            function(q[:, :, 1:], k, v, True)
    with pytest.raises(ValueError, match="as many queries as keys, not 11 and 12"):
        scatterbrain_attention(q[:, :, 1:], k, v, torch.zeros(2, 6), window=(1, 1))
    for window in ((-1, 1), (1, -1)):
        with pytest.raises(ValueError, match="must not be negative"):
            scatterbrain_attention(q, k, v, torch.zeros(2, 6), window=window)


MISFITS = {
    "batch of one": ((4, 4, 9, 8), (1, 4, 9, 8), (1, 4, 9, 8)),
    "grouped heads": ((1, 4, 9, 8), (1, 2, 9, 8), (1, 2, 9, 8)),
    "values of other tokens": ((1, 4, 9, 8), (1, 4, 9, 8), (1, 4, 5, 8)),
    "other channels": ((1, 4, 9, 8), (1, 4, 9, 7), (1, 4, 9, 8)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_shapes_that_do_not_fit_are_named(name):
    given = [torch.ones(shape) for shape in MISFITS[name]]
    kernel, projection = torch.zeros(8, 1, 3, 3), torch.zeros(2, 8)
    for function in (
        linear_attention,
        taylor_attention,
        lambda *x: simplified_linear_attention(*x, kernel, grid=(1, given[2].shape[2])),
        lambda *x: scatterbrain_attention(*x, projection, window=(1, 1)),
    ):
        with pytest.raises(ValueError, match=r"q \(.*\), k \(.*\), v \(.*\) do not fit together"):
            function(*given)
        with pytest.raises(ValueError, match="not 3-, 3-, 3-d"):
            function(*(x[0] for x in given))


@pytest.mark.parametrize(
    ("kernel", "bias", "grid", "message"),
    [
        ((8, 1, 2, 2), 8, (3, 3), "odd size, not .8, 1, 2, 2"),
        ((8, 1, 3, 5), 8, (3, 3), "odd size, not .8, 1, 3, 5"),
        ((7, 1, 3, 3), 8, (3, 3), "must be .8, 1, size, size."),
        ((8, 1, 3, 3), 7, (3, 3), "kernel_bias must be .8,., not .7,."),
        ((8, 1, 3, 3), 8, (-3, -3), "a grid of -3 x -3 does not hold 9 tokens"),
        ((8, 1, 3, 3), 8, (2, 4), "a grid of 2 x 4 does not hold 9 tokens"),
    ],
)
def test_a_convolution_that_would_move_tokens_is_named(kernel, bias, grid, message):
    q, k, v = torch.ones(3, 1, 2, 9, 8)
    with pytest.raises(ValueError, match=message):
        simplified_linear_attention(q, k, v, torch.zeros(kernel), torch.zeros(bias), grid=grid)
    with pytest.raises(ValueError, match="as many queries as keys, not 6 and 9"):
        simplified_linear_attention(q[:, :, :6], k, v, torch.zeros(8, 1, 3, 3), grid=(3, 3))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_resources(target):
    from zoo.kernels.linear.configurations import configurations

    main = [found for found in configurations(target) if found.main]
    for matrix in (True, False):
        check_ahead((found for found in main if found.matrix == matrix), target, matrix=matrix)
