"""16 bits: no kernel is worse than twice what plain PyTorch loses in the same type, and two runs give the same bits.

In the interpreter float16 alone, which cannot compute bfloat16; on a GPU both. Results start as NaN between sentinels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.kernels.harness import GuardBands
from zoo.kernels.attention import attention, attention_varlen
from zoo.kernels.attention.reference import attention_reference
from zoo.kernels.dispatch import INTERPRETED
from zoo.kernels.fftconv import fftconv
from zoo.kernels.kmeans import assign
from zoo.kernels.linear import linear_attention, taylor_attention
from zoo.kernels.max_similarity import max_similarity
from zoo.kernels.monarch import monarch
from zoo.kernels.monarch import reference as monarch_reference
from zoo.kernels.rational import rational
from zoo.kernels.rational import reference as rational_reference

DTYPES = (torch.float16,) if INTERPRETED else (torch.float16, torch.bfloat16)
BOUNDS = (0, 20, 20, 53)
Function = Callable[..., Tensor]


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, causal: bool = False) -> Tensor:
    visible = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2]) if causal else None
    return attention_reference(q, k, v, bias=bias, visible=visible, scale=q.shape[-1] ** -0.5)[0]


def packed_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    bounds = torch.tensor(BOUNDS, dtype=torch.int32)
    return attention_varlen(q, k, v, bounds, bounds)


def plain_packed_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    parts = [
        plain_attention(*(x[start:end].transpose(0, 1)[None] for x in (q, k, v)))[0].transpose(0, 1)
        for start, end in pairwise(BOUNDS)
    ]
    return torch.cat(parts)


def plain_rational(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return rational_reference.rational(x.to(a.dtype), a, b).to(x.dtype)


def plain_convolution(u: Tensor, k: Tensor) -> Tensor:
    size = 2 * u.shape[-1]
    spectrum = torch.fft.rfft(u.to(k.dtype), n=size) * torch.fft.rfft(k, n=size)
    return torch.fft.irfft(spectrum, n=size)[..., : u.shape[-1]].to(u.dtype)


def plain_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q.abs() @ (k.abs().mT @ v)) / (q.abs() @ k.abs().sum(-2)[..., None] + 1e-6)


def plain_taylor(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s = q @ k.mT * q.shape[-1] ** -0.5
    weights = (1 + s + s * s / 2).tril()
    return weights @ v / weights.sum(-1, keepdim=True)


def plain_nearest(x: Tensor, centroids: Tensor) -> Tensor:
    return (x[:, None] - centroids).square().sum(-1).amin(1)


HEADS = [(2, 3, 70, 64)] * 3
CASES: dict[str, tuple[Function, Function, Sequence[tuple[int, ...]]]] = {
    "attention": (attention, plain_attention, HEADS),
    "attention, causal": (
        lambda *x: attention(*x, causal=True),
        lambda *x: plain_attention(*x, causal=True),
        [(1, 2, 40, 64), (1, 2, 70, 64), (1, 2, 70, 64)],
    ),
    "attention, grouped": (attention, plain_attention, [(1, 4, 40, 32), (1, 2, 70, 32), (1, 2, 70, 32)]),
    "attention, one query": (attention, plain_attention, [(1, 4, 1, 64), (1, 2, 300, 64), (1, 2, 300, 64)]),
    "attention, windows with bias": (attention, plain_attention, [(16, 3, 49, 32)] * 3 + [(1, 3, 49, 49)]),
    "attention, 80 channels": (attention, plain_attention, [(1, 2, 33, 80)] * 3),
    "attention, 128 channels": (attention, plain_attention, [(1, 2, 65, 128)] * 3),
    "attention, 256 channels": (attention, plain_attention, [(1, 1, 33, 256)] * 3),
    "attention, packed": (packed_attention, plain_packed_attention, [(53, 2, 32)] * 3),
    "rational": (rational, plain_rational, [(70, 48), (4, 6), (4, 4)]),
    "fftconv": (fftconv, plain_convolution, [(2, 3, 100), (3, 100)]),
    "monarch": (monarch, monarch_reference.monarch, [(20, 64), (8, 8, 8), (8, 8, 8)]),
    "max_similarity": (
        lambda h, e: max_similarity(h, e).score,
        lambda h, e: (h @ e.t()).amax(1),
        [(3, 20, 64), (33, 64)],
    ),
    "linear attention": (lambda q, k, v: linear_attention(q.abs(), k.abs(), v), plain_linear, [(1, 2, 100, 32)] * 3),
    "taylor attention": (
        lambda *x: taylor_attention(*x, True),
        plain_taylor,
        [(1, 2, 100, 16), (1, 2, 100, 16), (1, 2, 100, 64)],
    ),
    "kmeans": (lambda x, c: assign(x, c)[1], plain_nearest, [(100, 32), (20, 32)]),
}
"""Ours, the same in plain PyTorch, and the shapes of what goes in."""

WIDE = {"rational": (1, 2), "fftconv": (1,)}
"""Inputs that stay in float32: coefficients and taps."""

WITHOUT_GRADIENT = ("kmeans",)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_no_worse_than_plain_pytorch(name, dtype):
    ours, plain, shapes = CASES[name]
    torch.manual_seed(0)
    leaves = [
        torch.randn(shape).to(torch.float32 if i in WIDE.get(name, ()) else dtype) for i, shape in enumerate(shapes)
    ]
    learns = name not in WITHOUT_GRADIENT
    upstream = torch.randn_like(plain(*leaves))
    with GuardBands() as guard:
        got, again = (results(ours, leaves, upstream, learns) for _ in range(2))
        guard.check(*got)
    assert all(torch.equal(a, b) for a, b in zip(got, again)), "two runs differ"
    exact = results(plain, [leaf.double() for leaf in leaves], upstream.double(), learns)
    for index, (g, p, want) in enumerate(zip(got, results(plain, leaves, upstream, learns), exact, strict=True)):
        lost, allowed = ((x.double() - want).abs().max() for x in (g, p))
        limit = 2 * float(allowed) + torch.finfo(dtype).eps * float(want.abs().max())
        assert float(lost) <= limit, f"result {index} loses {float(lost):.3g}, plain PyTorch {float(allowed):.3g}"


def results(function: Function, leaves: Sequence[Tensor], upstream: Tensor, learns: bool) -> list[Tensor]:
    """The output of a function, and the gradients of what went in."""
    if not learns:
        return [function(*leaves)]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream.to(out.dtype))]
