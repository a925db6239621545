"""Monarch products: parity, the dense matrix, projection, gradients, registration, export, resources."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from tests.golden.cases import Case, adapter
from tests.kernels.harness import check_compiled, check_dynamic, check_exported, check_onnx, close, interpreter_test
from zoo.kernels.monarch import block_diagonal, dense, monarch, project, reference

test_interpreter = interpreter_test("interpret_monarch.py")


def product(case: Case, tensors: dict, dy: torch.Tensor) -> dict:
    variables = {f"grad/{name}": value.requires_grad_() for name, value in tensors.items()}
    y = monarch(*variables.values())
    return {"output/y": y, **case.gradients((y * dy).sum(), variables)}


@adapter("monarch", "monarch_matmul", repeats=("batch", "w1", "w2"))
def monarch_matmul(case: Case) -> dict:
    tensors = {name: case.input[name] for name in ("x", "w1", "w2")}
    return product(case, tensors, case.input["dy"]) | {
        "output/dense_matrix": dense(tensors["w1"], tensors["w2"]),
        "output/blockdiag_y": block_diagonal(tensors["x"], tensors["w1"]),
    }


@adapter("monarch", "blockdiag_butterfly_multiply", repeats=("k", "l", "p", "q", "r", "s"))
def blockdiag_butterfly_multiply(case: Case) -> dict:
    return product(case, {"x": case.input["x"], **case.param}, case.input["grad_output"])


@adapter("monarch", "monarch_projection")
def monarch_projection(case: Case) -> dict:
    matrix = case.param["dense"]
    w1, w2 = project(matrix, case.arguments["rank"])
    near = dense(w1, w2)
    error = (near - matrix).square().sum()
    return {"output/w1": w1, "output/w2": w2, "output/reconstruction": near, "output/squared_error": error}


def inputs(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(2, 3, 24, dtype=dtype), torch.randn(4, 10, 6, dtype=dtype), torch.randn(8, 5, 5, dtype=dtype)


def test_gradients():
    given = [value.requires_grad_() for value in inputs(torch.float64)]
    assert torch.autograd.gradcheck(monarch, given)
    flat = (given[0].flatten(0, 1).detach().requires_grad_(), *given[1:])
    assert torch.autograd.gradcheck(lambda *x: torch.ops.zoo.monarch(*x)[0], flat)


def test_is_the_dense_product():
    x, w1, w2 = inputs()
    close(monarch(x, w1, w2), x @ dense(w1, w2).t(), tolerance=1e-6)
    close(monarch(x.flatten(0, 1), w1, w2), reference.monarch(x.flatten(0, 1), w1, w2), tolerance=1e-6)


def test_identity_blocks_are_a_permutation():
    eye = torch.eye(4).expand(4, 4, 4)
    matrix = dense(eye, eye)
    assert torch.equal(matrix.sum(0), torch.ones(16))
    assert torch.equal(matrix.sum(1), torch.ones(16))


@pytest.mark.parametrize("rank", [1, 2])
def test_projection_of_a_monarch_matrix_returns_it(rank):
    w1, w2 = torch.randn(4, 3 * rank, 3), torch.randn(3, 4, 4 * rank)
    matrix = dense(w1, w2)
    close(dense(*project(matrix, rank)), matrix, tolerance=1e-5)


def test_operators_are_registered_soundly():
    x, w1, w2 = (value.requires_grad_() for value in inputs())
    flat = x.detach().flatten(0, 1).requires_grad_()
    torch.library.opcheck(torch.ops.zoo.monarch.default, (flat, w1, w2))
    plain = [value.detach() for value in (flat, w1, w2)]
    _, hidden = torch.ops.zoo.monarch(*plain)
    given = (torch.randn(6, 40), plain[0], hidden, *plain[1:])
    torch.library.opcheck(torch.ops.zoo.monarch_backward.default, given)


def test_autocast_compile_and_export(tmp_path):
    x, w1, w2 = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        assert monarch(x, w1, w2).dtype == torch.bfloat16
    check_compiled(monarch, x, w1, w2)
    weights = (
        torch.randn(4, 10, 6),
        torch.randn(8, 7, 5),
    )  # sizes that are the same become one
    others = (torch.randn(9, 3, 24), *weights), (torch.randn(5, 9, 28), torch.randn(7, 6, 4), torch.randn(3, 11, 14))
    check_dynamic(monarch, (x, *weights), *others)
    check_exported(monarch, x, w1, w2)
    check_onnx(monarch, x, w1, w2, path=tmp_path)


def test_one_graph_of_the_operator_takes_every_batch():
    _, w1, w2 = inputs()
    given = [(torch.randn(batch, 24), w1, w2) for batch in (3, 7)]
    torch._dynamo.reset()
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda *x: torch.ops.zoo.monarch(*x)[0], fullgraph=True, dynamic=True, backend=backend)
    for arguments in given:
        close(compiled(*arguments), monarch(*arguments))
    assert backend.frame_count == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sliced", [True, False])
def test_dtypes_and_strides(dtype, sliced):
    """16 bits are laid out anew; a view of every other feature is read as one in order."""
    x, w1, w2 = inputs()
    x = torch.randn(5, 48)[:, ::2] if sliced else x.flatten(0, 1)
    given = [value.to(dtype) for value in (x, w1, w2)]
    close(monarch(*given), reference.monarch(*(value.double() for value in given)))


def test_errors():
    x, w1, w2 = inputs()
    with pytest.raises(ValueError, match="k q must equal l r"):
        monarch(x, w1, w2[:, :, 1:])
    with pytest.raises(ValueError, match="23 features"):
        monarch(x[..., 1:], w1, w2)
