"""max_similarity: parity, ties and empty masks, invariances, registration, export, resources."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.cases import Case, adapter
from tests.kernels.harness import TOLERANCE, check_compiled, check_exported, check_onnx, close, interpreter_test
from zoo.kernels.max_similarity import aten, max_similarity, reference

test_interpreter = interpreter_test("interpret_max_similarity.py")


@adapter("sparton", "sparton", repeats=("batch", "dim", "seq", "vocab"))
def sparton(case: Case) -> dict:
    hidden, embedding, bias = (case.input[name].requires_grad_() for name in ("hidden", "embedding", "bias"))
    mask, dy = case.input["mask"], case.input["dy"]
    y, position = max_similarity(hidden, embedding, bias, mask, activation="log1p_relu")
    logit, at = max_similarity(hidden, embedding, bias, mask)
    grads = case.gradients((y * dy).sum(), {"grad/hidden": hidden, "grad/embedding": embedding, "grad/bias": bias})
    keep = [v for v in range(len(embedding)) if v != case.arguments["inactive_term"]]
    concepts, patches = embedding.detach()[keep].requires_grad_(), hidden.detach().requires_grad_()
    score, place = max_similarity(patches[:-1], concepts, mask=mask[:-1], cosine=True)
    variables = {"grad/concept_patches": patches, "grad/concept_embedding": concepts}
    return {
        "output/y": y,
        "output/argmax": position,
        "output/max_logit": logit.masked_fill(at < 0, float("-inf")),
        "output/concept_max": score,
        "output/concept_argmax": place,
        **grads,
        **case.gradients((score * dy[:-1, :-1]).sum(), variables),
    }


def inputs(batch=3, length=11, dim=8, concepts=13, dtype=torch.float32):
    torch.manual_seed(0)
    mask = torch.rand(batch, length) < 0.7
    mask[0] = False
    return torch.randn(batch, length, dim, dtype=dtype), torch.randn(concepts, dim, dtype=dtype), mask


def test_tiles_equal_the_whole(monkeypatch):
    monkeypatch.setattr(aten, "ROWS", 22)
    monkeypatch.setattr(aten, "TILE", 100)
    hidden, embedding, mask = inputs(concepts=200)
    top, at = aten.max_dot(hidden, embedding, mask)
    want, place = reference.max_dot(hidden, embedding, mask)
    close(top, want)
    assert torch.equal(at.long(), place)


SIZES = [(3, 11, 8, 13), (2, 70, 8, 5), (1, 1, 1, 1)]
"""Batch, positions, features, concepts: of the second shape, positions lie side by side."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_without_the_operator_as_with_it(size, masked, dtype):
    hidden, embedding, mask = inputs(*size, dtype=dtype)
    given = hidden, embedding, mask if masked else None
    assert aten.is_small(hidden, embedding, True)
    top, at = torch.ops.zoo.max_dot(*given)
    score, position = aten.all_at_once(*given, True)
    assert torch.equal(position, at)
    assert score.dtype == top.dtype
    close(score, top, tolerance=1e-6)
    close(aten.all_at_once(*given, False)[0], top, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_of_ties_without_the_operator(dtype):
    """Each goes to the first of equal positions, as with the operator."""
    hidden, embedding, mask = inputs(dtype=dtype)
    hidden, mask = hidden.repeat(1, 2, 1), mask.repeat(1, 2)
    hidden.requires_grad_(), embedding.requires_grad_()
    tops = aten.all_at_once(hidden, embedding, mask, True)[0], torch.ops.zoo.max_dot(hidden, embedding, mask)[0]
    losses = [top.masked_fill(~mask.any(1)[:, None], 0.0).square().sum() for top in tops]
    grads = [torch.autograd.grad(loss, (hidden, embedding)) for loss in losses]
    assert not grads[0][0][:, 11:].any()
    for got, want in zip(*grads):
        close(got, want)


def test_gradients():
    hidden, embedding, mask = inputs(dtype=torch.float64)
    bias = torch.randn(13, dtype=torch.float64, requires_grad=True)
    given = (hidden.requires_grad_(), embedding.requires_grad_(), bias)
    assert torch.autograd.gradcheck(lambda *x: max_similarity(*x, mask).score, given)
    assert torch.autograd.gradcheck(lambda *x: max_similarity(*x, mask, activation="log1p_relu").score, given)
    assert torch.autograd.gradcheck(lambda h, e: max_similarity(h, e, cosine=True).score, given[:2])
    assert torch.autograd.gradcheck(lambda h, e: reference.max_dot(h, e)[0], given[:2])


def test_an_empty_mask_scores_zero_without_gradient():
    hidden, embedding, mask = inputs()
    hidden.requires_grad_()
    score, position = max_similarity(hidden, embedding, torch.ones(13), mask)
    (grad,) = torch.autograd.grad(score.sum(), hidden)
    assert not score[0].any()
    assert (position[0] == -1).all()
    assert not grad[0].any()
    assert grad.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 4, 6), (0, 0, 6), (2, 0, 6), (2, 4, 0)], ids=str)
@pytest.mark.parametrize("positions", [True, False])
def test_no_images_positions_or_concepts(shape, positions):
    batch, length, concepts = shape
    hidden, embedding = torch.ones(batch, length, 8, requires_grad=True), torch.ones(concepts, 8, requires_grad=True)
    with torch.set_grad_enabled(positions):
        found = max_similarity(hidden, embedding, positions=positions)
    assert found.score.shape == (batch, concepts)
    assert not found.score.any()
    if positions:
        assert not any(grad.any() for grad in torch.autograd.grad(found.score.sum(), (hidden, embedding)))


def test_what_a_mask_hides_reaches_no_gradient():
    hidden, embedding, mask = inputs()
    hidden = hidden.masked_fill(~mask[:, :, None], torch.nan).requires_grad_()
    score, _ = max_similarity(hidden, embedding.requires_grad_(), mask=mask)
    grads = torch.autograd.grad(score.sum(), (hidden, embedding))
    assert all(grad.isfinite().all() for grad in grads)


def test_invariances():
    hidden, embedding, mask = inputs()
    score, position = max_similarity(hidden, embedding, mask=mask)
    order = torch.randperm(hidden.shape[1])
    assert torch.equal(max_similarity(hidden[:, order], embedding, mask=mask[:, order]).score, score)
    twice = max_similarity(hidden.repeat(1, 2, 1), embedding, mask=mask.repeat(1, 2))
    assert torch.equal(twice.score, score)
    assert torch.equal(twice.position, position)
    hit = torch.zeros_like(mask)
    hit[1].index_fill_(0, position[1].long(), True)
    assert torch.equal(max_similarity(hidden, embedding, mask=mask & hit).score[1], score[1])


@pytest.mark.parametrize("activation", ["identity", "relu", "log1p_relu"])
def test_scores_alone_are_the_same(activation):
    hidden, embedding, mask = inputs()
    bias = torch.randn(len(embedding))
    score, position = max_similarity(hidden, embedding, bias, mask, activation=activation, positions=False)
    assert position is None
    assert torch.equal(score, max_similarity(hidden, embedding, bias, mask, activation=activation).score)
    learned = max_similarity(hidden.requires_grad_(), embedding, bias, mask, activation=activation, positions=False)
    assert torch.equal(learned.score, score)
    assert learned.score.requires_grad


def test_cosine_is_at_most_one():
    hidden, embedding, _ = inputs()
    score, _ = max_similarity(hidden, embedding, cosine=True)
    close(score, F.cosine_similarity(hidden[:, :, None], embedding, dim=-1).amax(1))


def test_operators_are_registered_soundly():
    hidden, embedding, mask = inputs()
    operator = torch.ops.zoo.max_dot.default
    torch.library.opcheck(operator, (hidden.requires_grad_(), embedding.requires_grad_(), mask))
    torch.library.opcheck(operator, (hidden.detach().bfloat16(), embedding.detach().bfloat16(), None))
    _, at = operator(hidden, embedding, mask)
    given = (torch.randn(3, 13), hidden.detach(), embedding.detach(), at)
    torch.library.opcheck(torch.ops.zoo.max_dot_backward.default, given)
    torch.library.opcheck(torch.ops.zoo.max_dot_score.default, (hidden.detach(), embedding.detach(), mask))


def test_autocast():
    hidden, embedding, _ = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        score, _ = max_similarity(hidden, embedding)
    assert score.dtype == torch.float32
    close(score, max_similarity(hidden, embedding).score, tolerance=0.02)


def test_compile_and_export(tmp_path):
    hidden, embedding, mask = inputs()
    check_compiled(max_similarity, hidden, embedding, None, mask)
    terms = (hidden, embedding, torch.ones(13), mask)
    check_exported(lambda *x: tuple(max_similarity(*x, activation="log1p_relu")), *terms)
    check_onnx(lambda h, e: tuple(max_similarity(h, e, cosine=True)), hidden, embedding, path=tmp_path)


def test_errors():
    hidden, embedding, mask = inputs()
    with pytest.raises(ValueError, match="choose one of identity"):
        max_similarity(hidden, embedding, activation="tanh")
    with pytest.raises(ValueError, match=r"expected \(B, S, D\)"):
        max_similarity(hidden[0], embedding)
    with pytest.raises(ValueError, match="mask"):
        max_similarity(hidden, embedding, mask=mask[:, 1:])
    with pytest.raises(ValueError, match="no features"):
        max_similarity(hidden[:, :, :0], embedding[:, :0])
    with pytest.raises(ValueError, match="give one type"):
        max_similarity(hidden, embedding.bfloat16())
    with pytest.raises(ValueError, match="bias"):
        max_similarity(hidden, embedding, torch.zeros(3))
