"""Attention on the CPU: golden parity, what must hold of any softmax attention, gradients, compile and export."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.golden.cases import Case, adapter
from tests.kernels.harness import check_compiled, check_exported, check_onnx, close, interpreter_test
from zoo.kernels.attention import attention, attention_varlen, merge
from zoo.kernels.attention.masks import Masks
from zoo.kernels.attention.op import attention_backward_op, attention_op
from zoo.kernels.attention.reference import attention_reference

test_interpreter = pytest.mark.slow(interpreter_test("interpret_attention.py", timeout=580))


@adapter(
    "attention",
    "attention",
    repeats=("batch", "bias_shape", "head_dim", "heads", "key_padding", "kv_heads", "kv_len", "q_len"),
)
def golden_attention(case: Case) -> dict[str, Tensor]:
    arguments, given = case.arguments, case.input
    variables = {key: given[key].to(case.dtype).requires_grad_() for key in ("q", "k", "v", "bias") if key in given}
    keywords = {key: given[key] for key in ("key_lengths", "block_mask") if key in given}
    settings = {
        "causal": arguments["causal"],
        "scale": arguments["softmax_scale"],
        "window": tuple(arguments["window"] or (-1, -1)),
        "block_size": arguments.get("block_size") and tuple(arguments["block_size"]),
    }
    o = attention(**variables, **keywords, **settings)
    _, lse = attention(**variables, **keywords, **settings, return_lse=True)
    return _with_gradients(case, o, lse, variables)


@adapter("attention", "attention_varlen", repeats=("head_dim", "heads", "kv_lengths", "q_lengths"))
def golden_attention_varlen(case: Case) -> dict[str, Tensor]:
    given = case.input
    variables = {key: given[key].to(case.dtype).requires_grad_() for key in "qkv"}
    o, lse = attention_varlen(
        *variables.values(),
        given["cu_seqlens_q"],
        given["cu_seqlens_k"],
        case.arguments["causal"],
        case.arguments["softmax_scale"],
        return_lse=True,
    )
    return _with_gradients(case, o, lse, variables)


def _with_gradients(case: Case, o: Tensor, lse: Tensor, variables: dict[str, Tensor]) -> dict[str, Tensor]:
    do = case.input["do"].to(o.dtype)
    names = {f"grad/{key}": value for key, value in variables.items()}
    return {
        "output/o": o,
        "output/lse": lse,
        "output/delta": (do * o).sum(-1),
        **case.gradients((do * o).sum(), names),
    }


VARIANTS = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"window": (3, 2)},
    "bias": {"bias": (1, 4, 9, 13)},
    "key bias": {"bias": (2, 1, 1, 13)},
    "key lengths": {"key_lengths": torch.tensor([13, 5], dtype=torch.int32)},
    "unified maximum": {"unified_max": 2.0, "causal": True},
    "blocks": {"block_mask": torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]]).bool(), "block_size": (4, 4)},
}


def inputs(variant: str, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[list[Tensor], dict]:
    """q, k, v of 2 images, 4 query and 2 key heads, 9 queries and 13 keys, and the variant's keywords."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 4, 9, 8), (2, 2, 13, 8), (2, 2, 13, 8)]
    qkv = [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]
    keywords = dict(VARIANTS[variant])
    if "bias" in keywords:
        keywords["bias"] = torch.randn(keywords["bias"], generator=generator, dtype=dtype).requires_grad_()
    return qkv, keywords


@pytest.mark.parametrize("variant", VARIANTS)
def test_o_is_the_same_with_and_without_lse(variant):
    qkv, keywords = inputs(variant)
    torch.testing.assert_close(attention(*qkv, **keywords), attention(*qkv, **keywords, return_lse=True)[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_the_reference_in_float64(variant):
    qkv, keywords = inputs(variant, dtype=torch.float64)
    bias = keywords.pop("bias", None)
    variables = [*qkv, *([bias] if bias is not None else [])]

    def function(*variables: Tensor) -> tuple[Tensor, Tensor]:
        return attention(*variables, **keywords, return_lse=True)

    assert torch.autograd.gradcheck(function, variables)


@pytest.mark.parametrize("variant", VARIANTS)
def test_opcheck(variant):
    qkv, keywords = inputs(variant)
    mask = keywords.get("block_mask")
    arguments = (
        *qkv,
        keywords.get("bias"),
        keywords.get("key_lengths"),
        None if mask is None else mask[None, None],
        None,
        None,
        0.3,
        keywords.get("window", (-1, 0 if keywords.get("causal") else -1)),
        keywords.get("block_size", (1, 1)),
        0,
    )
    torch.library.opcheck(attention_op, (*arguments, None))
    torch.library.opcheck(attention_op, (*arguments, 2.0))
    given = [x.detach() if isinstance(x, Tensor) else x for x in arguments]
    o, lse = attention_op(*given, None)
    upstream = (torch.randn_like(o), torch.randn_like(lse))
    learns = keywords.get("bias") is not None
    torch.library.opcheck(attention_backward_op, (*upstream, *given[:3], o, lse, *given[3:], learns))


@pytest.mark.parametrize("phi", [-500.0, -20.0, 0.0, 20.0, 500.0])
def test_a_unified_maximum_changes_neither_result_nor_gradient(phi):
    qkv, _ = inputs("plain", dtype=torch.float64)

    def under(*x: Tensor) -> tuple[Tensor, Tensor]:
        return attention_reference(*x, scale=0.3, unified_max=phi)

    torch.testing.assert_close(under(*qkv), attention(*qkv, scale=0.3, return_lse=True))
    assert torch.autograd.gradcheck(under, qkv)


def packed(dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor, Tensor]:
    """q, k, v of four sequences behind each other, one without queries and one without keys, and their bounds."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(11, 4, 8), (14, 2, 8), (14, 2, 6)]
    qkv = [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]
    return qkv, torch.tensor([0, 5, 5, 9, 11]).int(), torch.tensor([0, 7, 10, 14, 14]).int()


@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences_are_registered_and_differentiated_soundly(causal):
    qkv, *bounds = packed(torch.float64)
    keywords = {"causal": causal, "return_lse": True}

    def finite(*x: Tensor) -> tuple[Tensor, Tensor]:
        o, lse = attention_varlen(*x, *bounds, **keywords)
        return o, lse.masked_fill(lse == -math.inf, 0.0)

    assert torch.autograd.gradcheck(finite, qkv)
    one = [x.float().detach().transpose(0, 1)[None].requires_grad_() for x in qkv]
    settings = (0.3, (-1, 0 if causal else -1), (1, 1), 5)
    torch.library.opcheck(attention_op, (*one, None, None, None, *bounds, *settings, None))


@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences_compile_to_one_graph_and_export_in_aten(causal):
    qkv, *bounds = packed()
    given = [x.detach() for x in qkv]
    for check in (check_compiled, check_exported):
        check(lambda *x: attention_varlen(*x, causal=causal, return_lse=True), *given, *bounds)


def test_packed_sequences_of_any_number_export():
    class Packed(torch.nn.Module):
        def forward(self, x: Tensor, bounds: Tensor) -> Tensor:
            return attention_varlen(x, x, x, bounds, bounds)

    rows, ends = torch.export.Dim("rows", min=2, max=100), torch.export.Dim("ends", min=3, max=50)
    given = (torch.randn(7, 2, 8), torch.tensor([0, 3, 7]))
    program = torch.export.export(Packed(), given, dynamic_shapes=({0: rows}, {0: ends}))
    other = (torch.randn(9, 2, 8), torch.tensor([0, 3, 5, 9]))
    torch.testing.assert_close(program.module()(*other), Packed()(*other))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_log_sum_exp_compiles_and_exports_too(variant):
    qkv, keywords = constants(variant)
    for check in (check_compiled, check_exported):
        check(lambda *x: attention(*x, **keywords, return_lse=True), *qkv)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_log_sum_exp_of_16_bits_is_not_rounded_to_them(dtype):
    q, k, v = (torch.randn(1, 2, n, 64).to(dtype) for n in (50, 64, 64))
    o, lse = attention(q, k, v, return_lse=True)
    cu_q, cu_k = torch.tensor([0, 50]).int(), torch.tensor([0, 64]).int()
    rows = [x[0].transpose(0, 1) for x in (q, k, v)]
    packed_o, packed_lse = attention_varlen(*rows, cu_q, cu_k, return_lse=True)
    _, want = attention(q.double(), k.double(), v.double(), return_lse=True)
    assert o.dtype == packed_o.dtype == dtype
    assert lse.dtype == packed_lse.dtype == torch.float32
    close(lse, want, tolerance=1e-6)
    close(packed_lse.transpose(0, 1)[None], want, tolerance=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_graph_when_compiled(variant):
    qkv, keywords = inputs(variant)
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    got, want = compiled(*qkv, **keywords), attention(*qkv, **keywords)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got.sum(), qkv), torch.autograd.grad(want.sum(), qkv)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_graph_when_sizes_vary(variant):
    """Compiled for any size: other images, and heads that do or do not share their keys."""
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, dynamic=True, backend="aot_eager")
    (q, k, v), keywords = constants(variant)
    bias = keywords.pop("bias", None)
    for heads in ([0, 1, 2, 3], [0, 2], [0, 1, 2, 3, 0, 1]):
        given = [q[:, heads], k[:, : min(2, len(heads))], v[:, : min(2, len(heads))]]
        its_bias = bias[:, heads] if bias is not None and bias.shape[1] > 1 else bias
        torch.testing.assert_close(compiled(*given, its_bias, **keywords), attention(*given, its_bias, **keywords))


@pytest.mark.parametrize("variant", VARIANTS)
def test_export_holds_only_aten_operations(variant):
    qkv, keywords = constants(variant)
    check_exported(lambda q, k, v: attention(q, k, v, **keywords), *qkv)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "causal", "bias"])
def test_onnx_runtime_agrees(variant, tmp_path):
    pytest.importorskip("onnxruntime")
    qkv, keywords = constants(variant)
    check_onnx(lambda q, k, v: attention(q, k, v, **keywords), *qkv, path=tmp_path)


def constants(variant: str) -> tuple[list[Tensor], dict]:
    qkv, keywords = inputs(variant)
    keywords = {key: value.detach() if isinstance(value, Tensor) else value for key, value in keywords.items()}
    return [x.detach() for x in qkv], keywords


def test_a_query_without_a_key_gets_zero_and_no_gradient():
    q, k, v = (torch.randn(1, 1, n, 8, requires_grad=True) for n in (5, 2, 2))
    for o in (attention(q, k, v, causal=True), attention(q, k, v, causal=True, return_lse=True)[0]):
        assert torch.equal(o[:, :, :3], torch.zeros(1, 1, 3, 8))
        dq, dk, dv = torch.autograd.grad(o.sum(), (q, k, v))
        assert torch.equal(dq[:, :, :3], torch.zeros(1, 1, 3, 8))
        assert torch.isfinite(dk).all()
        assert torch.isfinite(dv).all()
    lse = attention(q, k, v, causal=True, return_lse=True)[1]
    assert torch.equal(lse[..., :3], torch.full((1, 1, 3), -math.inf))


def test_a_bias_that_learns_may_hide_a_whole_row():
    (q, k, v), _ = inputs("plain")
    bias = torch.zeros(1, 4, 9, 13).index_fill(2, torch.tensor([3]), -math.inf).requires_grad_()
    k, v = (x.repeat_interleave(2, 1) for x in (k, v))
    o = attention(q, k, v, bias)
    assert torch.equal(o[:, :, 3], torch.zeros_like(o[:, :, 3]))
    assert all(torch.isfinite(x).all() for x in torch.autograd.grad(o.square().sum(), (q, k, v, bias)))


@pytest.mark.parametrize("return_lse", [False, True])
def test_what_lies_behind_the_keys_does_not_matter(return_lse):
    (q, k, v), _ = inputs("plain")
    lengths = torch.tensor([13, 5])
    junk = [x.detach().clone() for x in (k, v)]
    for x in junk:
        x[1, :, 5:] = math.nan
    got, want = (attention(q, *x, key_lengths=lengths, return_lse=return_lse) for x in (junk, (k, v)))
    torch.testing.assert_close(got, want)


def test_no_keys_at_all():
    q, k = torch.randn(2, 2, 3, 8, requires_grad=True), torch.randn(2, 2, 0, 8)
    o, lse = attention(q, k, k, return_lse=True)
    assert o.shape == (2, 2, 3, 8)
    assert not o.any()
    assert torch.isneginf(lse).all()
    assert not torch.autograd.grad(o.sum(), q)[0].any()


def test_order_of_keys_does_not_matter():
    (q, k, v), _ = inputs("plain")
    order = torch.randperm(13)
    o, lse = attention(q, k, v, return_lse=True)
    o_again, lse_again = attention(q, k[:, :, order], v[:, :, order], return_lse=True)
    torch.testing.assert_close(o, o_again)
    torch.testing.assert_close(lse, lse_again)


def test_a_constant_added_to_a_row_shifts_only_lse():
    (q, k, v), _ = inputs("plain")
    shift = torch.randn(2, 1, 9, 1)
    o, lse = attention(q, k, v, return_lse=True)
    o_again, lse_again = attention(q, k, v, shift, return_lse=True)
    torch.testing.assert_close(o, o_again)
    torch.testing.assert_close(lse + shift.squeeze(-1), lse_again)


def test_rows_of_the_bias_gradient_sum_to_zero():
    qkv, keywords = inputs("bias")
    o = attention(*qkv, **keywords)
    (gradient,) = torch.autograd.grad((o * torch.randn_like(o)).sum(), keywords["bias"])
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(1, 4, 9), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cuts", [(5, 13), (0, 4, 4, 13), (1, 2, 3, 13)])
def test_merged_parts_are_the_whole(cuts):
    (q, k, v), _ = inputs("plain", dtype=torch.float64)
    edges = [0, *cuts]
    parts = [attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in pairwise(edges)]
    whole = attention(q, k, v, return_lse=True)
    for merged in (merge(parts), merge(parts[::-1])):
        torch.testing.assert_close(merged, whole)
        weights = [torch.randn_like(x) for x in whole]
        gradients = [
            torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, result)), (q, k, v), retain_graph=True)
            for result in (merged, whole)
        ]
        torch.testing.assert_close(*gradients)


def test_packed_sequences_equal_separate_ones():
    lengths, generator = [(5, 7), (0, 3), (4, 4), (2, 0)], torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(n, 2, 8, generator=generator) for n in (11, 14, 14))
    cu_q, cu_k = (torch.tensor([0, *column]).cumsum(0).int() for column in zip(*lengths))
    o, lse = attention_varlen(q, k, v, cu_q, cu_k, causal=True, return_lse=True)
    for a, b, c, d in zip(cu_q, cu_q[1:], cu_k, cu_k[1:]):
        part = [x.transpose(0, 1)[None] for x in (q[a:b], k[c:d], v[c:d])]
        want, want_lse = attention(*part, causal=True, return_lse=True)
        torch.testing.assert_close(o[a:b].transpose(0, 1), want[0])
        torch.testing.assert_close(lse[a:b].transpose(0, 1), want_lse[0])


def test_autocast_computes_in_its_dtype_and_returns_gradients_in_the_given_one():
    (q, k, v), _ = inputs("plain")
    rows, *bounds = packed()
    with torch.autocast("cpu", torch.bfloat16):
        o = attention(q, k, v)
        assert attention_varlen(*rows, *bounds).dtype is torch.bfloat16
    assert o.dtype is torch.bfloat16
    assert torch.autograd.grad(o.sum(), q)[0].dtype is torch.float32


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bias": torch.zeros(1, 3, 9, 13)}, "does not broadcast"),
        ({"bias": torch.ones(9, 13).bool()}, "floating point"),
        ({"block_mask": torch.ones(2, 2).bool()}, "go together"),
        ({"block_mask": torch.ones(2, 2).bool(), "block_size": (4, 4)}, r"\(3, 4\) tiles"),
        ({"key_lengths": torch.tensor([5])}, r"key_lengths must be \(2,\)"),
        ({"unified_max": math.inf}, "unified_max must be a finite number, not inf"),
    ],
)
def test_a_wrong_argument_is_named(change, says):
    (q, k, v), _ = inputs("plain")
    with pytest.raises(ValueError, match=says):
        attention(q, k, v, **change)


def test_wrong_shapes_are_named():
    q, k = torch.zeros(1, 4, 3, 8), torch.zeros(1, 3, 3, 8)
    with pytest.raises(ValueError, match="4 query heads cannot share 3 key heads"):
        attention(q, k, k)
    with pytest.raises(ValueError, match="do not fit together"):
        attention(q, k[..., :4], k)
    with pytest.raises(ValueError, match="cu_seqlens"):
        attention_varlen(q[0], k[0], k[0], torch.zeros(3), torch.zeros(2))


@pytest.mark.parametrize("bounds", [[0, 4, 9], [1, 4, 10], [0, 4, 11], [0, 12, 10], [0, -1, 10], [0]], ids=str)
def test_bounds_that_leave_rows_out_or_go_beyond_them_are_named(bounds):
    q, right, wrong = torch.zeros(10, 2, 8), torch.tensor([0, 4, 10]), torch.tensor(bounds)
    for given, name in (((wrong, right), "cu_seqlens_q"), ((right, wrong), "cu_seqlens_k")):
        with pytest.raises(ValueError, match="cu_seqlens" if len(bounds) == 1 else name):
            attention_varlen(q, q, q, *given)


def test_window_is_aligned_to_the_last_query_and_key():
    visible = Masks((1, 0)).visible(2, 4)
    assert visible is not None
    assert visible.tolist() == [[False, True, True, False], [False, False, True, True]]
    assert Masks().visible(2, 4) is None
