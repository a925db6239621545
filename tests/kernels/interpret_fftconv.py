"""The FFT convolution in the interpreter, forward and backward, with guard bands.

TRITON_INTERPRET=1 pytest tests/kernels/interpret_fftconv.py
"""

import pytest
import torch
from torch import Tensor

from tests.kernels.harness import GuardBands, close
from zoo.kernels.fftconv import fftconv, reference
from zoo.kernels.fftconv import triton as kernels


def exact(u: Tensor, k: Tensor, size: int) -> Tensor:
    """The convolution in float64 by PyTorch's transform, which reference.fftconv is compared with elsewhere."""
    spectrum = torch.fft.rfft(u.double(), n=size) * torch.fft.rfft(k.double(), n=size)
    return torch.fft.irfft(spectrum, n=size)[..., : u.shape[2]]


SIZES = [
    *[(2, 3, 37, 37, 256, gated) for gated in (True, False)],
    (1, 2, 300, 512, 512, False),
    (1, 1, 1024, 1023, 1024, True),
    (1, 1, 999, 1000, 2048, False),
    (2, 1, 2047, 2001, 4096, True),
    (1, 1, 8191, 13, 8192, False),
    pytest.param(1, 1, 9001, 7000, 16384, False, marks=pytest.mark.slow),
    pytest.param(1, 1, 16383, 16383, 32768, False, marks=pytest.mark.slow),
]
"""Images, channels, length, taps, points, with gates."""


def inputs(batch: int, channels: int, length: int, taps: int) -> list[Tensor]:
    torch.manual_seed(0)
    signals = [torch.randn(batch, channels, length) for _ in range(4)]
    return [signals[0], torch.randn(channels, taps) / taps**0.5, *signals[1:]]


@pytest.mark.parametrize(("batch", "channels", "length", "taps", "size", "gated"), SIZES)
def test_forward_and_backward(batch, channels, length, taps, size, gated):
    u, k, a, b, dy = inputs(batch, channels, length, taps)
    a, b = (a, b) if gated else (None, None)
    with GuardBands() as guard:
        u_in, k_in, dy_in = (guard.input(value) for value in (u, k, dy))
        a_in, b_in = (None if value is None else guard.input(value) for value in (a, b))
        y = kernels.convolve(u_in, k_in, size, in_gate=a_in, out_gate=b_in)
        dx = kernels.convolve(dy_in, k_in, size, in_gate=b_in, conjugate=True)
        found = [y, dx]
        if kernels.correlates(size):
            found.append(kernels.correlate(u_in, dy_in, taps, size, in_gate=a_in, out_gate=b_in))
        guard.check(*found)
    x = (u if a is None else u * a).double().requires_grad_()
    wide = k.double().requires_grad_()
    want = exact(x, wide, size) * (1 if b is None else b)
    wanted = [want, *torch.autograd.grad(want, (x, wide), dy.double())]
    for got, expected in zip(found, wanted):
        close(got, expected, tolerance=1e-5)


@pytest.mark.parametrize("size", [256, 4096])
def test_no_image_has_no_gradient(size):
    with GuardBands() as guard:
        dk = kernels.correlate(torch.randn(0, 2, 100), torch.randn(0, 2, 100), 50, size)
        guard.check(dk)
    assert not dk.any()


@pytest.mark.slow
@pytest.mark.parametrize("size", [65536])
def test_the_longest(size):
    u, k, *_ = inputs(1, 1, size // 2 - 1, size // 2)
    close(kernels.convolve(u, k, size), exact(u, k, size), tolerance=1e-5)


@pytest.mark.parametrize(("length", "channels"), [(1, 2), (100, 2), (2049, 1)])
def test_the_public_function_takes_the_kernel(length, channels):
    """With gradients of gates that are broadcast."""
    u, k, a, b, dy = inputs(1, channels, length, length)
    variables = [value.requires_grad_() for value in (u, k, a[:, :, :1].detach(), b)]
    y = fftconv(u, k, in_gate=variables[2], out_gate=b)
    assert "fftconv" in type(y.grad_fn).__name__.lower()
    wide = [value.detach().double().requires_grad_() for value in variables]
    want = exact(wide[0] * wide[2], wide[1], 2 * length) * wide[3]
    close(y, want, tolerance=1e-5)
    for got, expected in zip(torch.autograd.grad(y, variables, dy), torch.autograd.grad(want, wide, dy.double())):
        close(got, expected, tolerance=1e-5)


def test_autocast_leaves_the_dtype():
    u, k, *_ = inputs(1, 2, 100, 60)
    with torch.autocast("cpu", torch.float16):
        y = fftconv(u.half(), k)
    assert y.dtype == torch.float16
    close(y.float(), exact(u.half(), k, 256), tolerance=2e-3)


def test_the_definition():
    u, k, *_ = inputs(1, 2, 100, 60)
    close(fftconv(u, k), reference.fftconv(u, k, 256))


@pytest.mark.parametrize(("length", "size"), [(60, 256), (2100, 4096)])
def test_gates_may_be_wider_than_the_signal(length, size):
    u, k, a, b, dy = inputs(1, 2, length, 60)
    given = [value.half() for value in (u, dy)]
    with GuardBands() as guard:
        u_in, dy_in = (guard.input(value) for value in given)
        gates = {"in_gate": guard.input(a), "out_gate": guard.input(b.half())}
        y = kernels.convolve(u_in, guard.input(k), size, **gates)
        dk = kernels.correlate(u_in, dy_in, 60, size, **gates)
        guard.check(y, dk)
    wide = k.double().requires_grad_()
    want = exact(given[0].double() * a, wide, size) * b.half().double()
    close(y, want, tolerance=1e-3)
    close(dk, torch.autograd.grad(want, wide, given[1].double())[0], tolerance=1e-5)
