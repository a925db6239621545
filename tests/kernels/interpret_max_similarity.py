"""The max_similarity kernels in the interpreter, forward and backward, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.max_similarity import aten, reference
from zoo.kernels.max_similarity import triton as kernels

SHAPES = [(1, 1, 1, 1), (2, 7, 5, 3), (3, 70, 33, 67), (2, 65, 64, 130), (2, 0, 8, 4), (0, 3, 8, 4), (2, 3, 8, 0)]


@pytest.mark.parametrize(("batch", "length", "dim", "concepts"), SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_forward_and_backward(batch, length, dim, concepts, masked):
    torch.manual_seed(0)
    hidden, embedding = torch.randn(batch, length, dim), torch.randn(concepts, dim)
    mask = torch.rand(batch, length) < 0.6 if masked else None
    if masked and batch > 1:
        mask[0] = False
    grad = torch.randn(batch, concepts)
    with GuardBands() as guard:
        h, e = guard.input(hidden), guard.input(embedding)
        top, at = kernels.max_dot(h, e, mask if mask is None else guard.input(mask))
        dh, de = kernels.max_dot_backward(guard.input(grad), h, e, at)
        guard.check(top, dh, de)
    if not length:
        assert (at == -1).all()
        assert not de.any()
        return
    hidden.requires_grad_(), embedding.requires_grad_()
    want, place = reference.max_dot(hidden, embedding, mask)
    close(top, want, tolerance=2e-6)
    assert torch.equal(at.long(), place)
    scalar = (want.masked_fill(place < 0, 0.0) * grad).sum()
    for got, expected in zip((dh, de), torch.autograd.grad(scalar, (hidden, embedding))):
        close(got, expected, tolerance=5e-6)


def test_ties_go_to_the_first_position():
    hidden = torch.randn(2, 3, 8).repeat(1, 50, 1)
    _, at = kernels.max_dot(hidden, torch.randn(5, 8))
    assert (at < 3).all()


@pytest.mark.parametrize("where", ["hidden", "embedding", "nowhere seen"])
def test_nan_is_passed_on_as_torch_max_does(where):
    """The score is NaN at the place of the first NaN, also behind an infinity; hidden positions do not count."""
    torch.manual_seed(0)
    hidden, embedding = torch.randn(3, 150, 33), torch.randn(40, 33)
    mask = torch.ones(3, 150, dtype=torch.bool)
    if where == "embedding":
        embedding[7] = float("nan")
    else:
        hidden[0, 5] = float("inf")
        hidden[0, [17, 90]] = hidden[1, [128, 140]] = float("nan")
        embedding[:4] = embedding[:4].abs()
    if where == "nowhere seen":
        mask[0, [5, 17, 90]] = mask[1, [128, 140]] = False
    top, at = kernels.max_dot(hidden, embedding, mask)
    want, place = aten.max_dot(hidden, embedding, mask)
    assert bool(top.isnan().any()) == (where != "nowhere seen")
    assert torch.equal(top.isnan(), want.isnan())
    assert torch.equal(at, place)
    close(top.nan_to_num(0.0), want.nan_to_num(0.0), tolerance=2e-6)
