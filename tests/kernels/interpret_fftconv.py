"""The FFT convolution in the interpreter, forward and backward, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.fftconv import fftconv, reference
from zoo.kernels.fftconv import triton as kernels


@pytest.mark.parametrize(("batch", "channels", "length", "taps", "size"), [(2, 3, 37, 37, 256), (1, 2, 300, 512, 512)])
def test_forward_and_backward(batch, channels, length, taps, size):
    torch.manual_seed(0)
    u, k = torch.randn(batch, channels, length), torch.randn(channels, taps) / taps**0.5
    dy = torch.randn(batch, channels, length)
    with GuardBands() as guard:
        y = kernels.convolve(guard.input(u), guard.input(k), size)
        du = kernels.convolve(guard.input(dy), guard.input(k), size, conjugate=True)
        dk = kernels.correlate(guard.input(u), guard.input(dy), taps, size)
        guard.check(y, du, dk)
    wide = [value.double().requires_grad_() for value in (u, k)]
    want = reference.fftconv(*wide, size)
    close(y, want, tolerance=5e-6)
    for got, expected in zip((du, dk), torch.autograd.grad(want, wide, dy.double())):
        close(got, expected, tolerance=5e-6)


def test_the_public_function_takes_the_kernel():
    u, k = torch.randn(1, 2, 100, requires_grad=True), torch.randn(2, 100)
    y = fftconv(u, k)
    assert "zoo" in type(y.grad_fn).__name__.lower() or "fftconv" in type(y.grad_fn).__name__.lower()
    close(y, reference.fftconv(u, k, 256))
