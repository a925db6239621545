"""The linear-attention kernels in the interpreter, forward and backward, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.linear import launch, linear_attention, reference, simplified_linear_attention, taylor_attention
from zoo.kernels.linear.scan import scan

SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 70, 70, 3, 7),
    (1, 33, 33, 17, 33),
    (2, 0, 0, 4, 3),
    (0, 3, 3, 4, 3),
]
PLANS = {
    "near": lambda m, n: launch.Plan(True, False, max(m, n, 1), 1),
    "far": lambda m, n: launch.Plan(False, True, n, 1),
}


def check(shape, kind, causal, chosen):
    heads, queries, keys, channels, values = shape
    torch.manual_seed(0)
    sizes = ((queries, channels), (keys, channels), (keys, values), (queries, values))
    q, k, v, dy = (torch.randn(heads, 2, *size) for size in sizes)
    if kind == "linear":
        q, k = q.abs(), k.abs()
    with GuardBands() as guard:
        given = [guard.input(x) for x in (q, k, v)]
        y, z = launch.forward(*given, kind, causal, 1e-3, chosen)
        grads = launch.backward(guard.input(dy), *given, y, z, kind, causal, chosen)
        guard.check(y, z, *grads)
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    want, sums = reference.attend(*wide, kind=kind, causal=causal, eps=1e-3)
    close(z, sums, tolerance=5e-6)
    close(y, want, tolerance=2e-5)
    for got, expected in zip(grads, torch.autograd.grad(want, wide, dy.double())):
        close(got, expected, tolerance=5e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["linear", "relu", "taylor"])
@pytest.mark.parametrize("name", PLANS)
def test_without_a_mask(shape, kind, name, monkeypatch):
    if not shape[2] and name == "far":
        pytest.skip("no keys: no state")
    monkeypatch.setattr(launch, "CHUNK", 50)
    check(shape, kind, False, PLANS[name](*shape[1:3]))


@pytest.mark.parametrize("kind", ["relu", "taylor"])
def test_more_keys_than_queries(kind):
    for name in PLANS:
        check((1, 3, 70, 2, 5), kind, False, PLANS[name](3, 70))
        check((1, 40, 2, 2, 5), kind, False, PLANS[name](40, 2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["linear", "taylor"])
@pytest.mark.parametrize("chunk", [None, 64])
def test_causal(shape, kind, chunk):
    if chunk is not None and not shape[2]:
        pytest.skip("no keys: no state")
    chosen = launch.Plan(True, True, chunk or 1, -(-shape[2] // (chunk or 1)))
    check(shape, kind, True, PLANS["near"](*shape[1:3]) if chunk is None else chosen)


@pytest.mark.parametrize("chunks", [1, 2, 16, 37])
def test_sums_over_chunks(chunks):
    """As exact as a sum can be over many chunks, and 0 before the first and behind the last."""
    torch.manual_seed(0)
    state = torch.rand(3, chunks, 5, 36)
    with GuardBands() as guard:
        before, after = scan(guard.input(state)), scan(guard.input(state), reverse=True)
        guard.check(before, after)
    want = state.double().cumsum(1)
    close(before, want - state, tolerance=3e-7)
    close(after, want[:, -1:] - want, tolerance=3e-7)
    assert not before[:, 0].any()
    assert not after[:, -1].any()


def test_shapes_that_do_not_fit_are_refused_before_a_kernel_reads_them():
    q, k, v = torch.ones(4, 4, 9, 8), torch.ones(1, 4, 9, 8), torch.ones(1, 4, 9, 8)
    kernel = torch.zeros(8, 1, 3, 3)
    for function in (
        linear_attention,
        taylor_attention,
        lambda *x: simplified_linear_attention(*x, kernel, grid=(3, 3)),
    ):
        for given in ((q, k, v), (k, k[:, :2], v[:, :2]), (k, k, v[:, :, :5]), (k, k[..., :7], v)):
            with pytest.raises(ValueError, match="do not fit together"):
                function(*given)


def test_weights_beyond_the_range_of_float16_stay_finite():
    q, v = torch.full((1, 1, 4, 8), 100.0).half(), torch.arange(4.0).view(1, 1, 4, 1).half()
    for function in (linear_attention, taylor_attention):
        torch.testing.assert_close(function(q, q, v), torch.full((1, 1, 4, 1), 1.5).half())
