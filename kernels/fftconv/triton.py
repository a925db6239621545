"""FFT convolution on a GPU for transforms of 256 to 2048 points, after FlashFFTConv (arXiv 2311.05908).

One program transforms one row as two matrix products with twiddles between, multiplies with the kernel's spectrum and
transforms back, all on chip: u is read once and y written once. The spectrum is kept in the order in which the stages
produce it, so nothing is ever permuted.
"""

from collections.abc import Iterator
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.kernels.aot import Configuration
from zoo.kernels.dispatch import dot_precision
from zoo.kernels.fftconv.reference import dft, twiddles

SMALLEST, LARGEST = 256, 2048
"""Points of the transforms that the kernel does; 4096 spill registers."""
LARGEST_CORRELATION = 512
"""Two transforms and their running product fit the registers up to here."""

WARPS = 8


@triton.jit
def _load(pointer, rows: tl.constexpr, columns: tl.constexpr):
    return tl.load(pointer + tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :])


@triton.jit
def _row(pointer, row, L, N1: tl.constexpr, N2: tl.constexpr):
    """A row of L values as (N1, N2), zero behind its end."""
    at = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
    return tl.load(pointer + row * L + at, mask=at < L, other=0.0).to(tl.float32)


@triton.jit
def _spectrum(x, f1, f2, tw, N1: tl.constexpr, N2: tl.constexpr, PRECISION: tl.constexpr):
    """Real and imaginary parts of ((F1 x) T) F2."""
    a = tl.dot(_load(f1, N1, N1), x, input_precision=PRECISION)
    b = tl.dot(_load(f1 + N1 * N1, N1, N1), x, input_precision=PRECISION)
    c, s = _load(tw, N1, N2), _load(tw + N1 * N2, N1, N2)
    a, b = a * c - b * s, a * s + b * c
    real, imaginary = _load(f2, N2, N2), _load(f2 + N2 * N2, N2, N2)
    z = tl.dot(a, real, input_precision=PRECISION) - tl.dot(b, imaginary, input_precision=PRECISION)
    return z, tl.dot(a, imaginary, input_precision=PRECISION) + tl.dot(b, real, input_precision=PRECISION)


@triton.jit
def _inverse(a, b, f1, f2, tw, N1: tl.constexpr, N2: tl.constexpr, PRECISION: tl.constexpr):
    """Real part of conj(F1) ((z conj(F2)) conj(T)) / n for z = a + i b."""
    real, imaginary = _load(f2, N2, N2), _load(f2 + N2 * N2, N2, N2)
    g = tl.dot(a, real, input_precision=PRECISION) + tl.dot(b, imaginary, input_precision=PRECISION)
    h = tl.dot(b, real, input_precision=PRECISION) - tl.dot(a, imaginary, input_precision=PRECISION)
    c, s = _load(tw, N1, N2), _load(tw + N1 * N2, N1, N2)
    g, h = g * c + h * s, h * c - g * s
    x = tl.dot(_load(f1, N1, N1), g, input_precision=PRECISION)
    x = tl.dot(_load(f1 + N1 * N1, N1, N1), h, x, input_precision=PRECISION)
    return x / (N1 * N2)


@triton.jit
def convolve_kernel(
    u, spectrum, f1, f2, tw, y, H, L,
    N1: tl.constexpr, N2: tl.constexpr, CONJUGATE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = iFFT(FFT(u) K), or with conj(K): one program for each row (b, h)."""
    row = tl.program_id(0).to(tl.int64)
    kernel = spectrum + (row % H) * 2 * N1 * N2
    a, b = _spectrum(_row(u, row, L, N1, N2), f1, f2, tw, N1, N2, PRECISION)
    c, d = _load(kernel, N1, N2), _load(kernel + N1 * N2, N1, N2)
    if CONJUGATE:
        d = -d
    out = _inverse(a * c - b * d, a * d + b * c, f1, f2, tw, N1, N2, PRECISION)
    at = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
    tl.store(y + row * L + at, out.to(y.dtype.element_ty), mask=at < L)


@triton.jit
def correlate_kernel(
    u, grad, f1, f2, tw, dk, B, H, L, TAPS,
    N1: tl.constexpr, N2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk = iFFT(sum_b conj(FFT(u)) FFT(dy)): one program for each channel."""
    channel = tl.program_id(0).to(tl.int64)
    real = tl.zeros((N1, N2), tl.float32)
    imaginary = tl.zeros((N1, N2), tl.float32)
    for batch in range(0, B):
        a, b = _spectrum(_row(u, batch * H + channel, L, N1, N2), f1, f2, tw, N1, N2, PRECISION)
        c, d = _spectrum(_row(grad, batch * H + channel, L, N1, N2), f1, f2, tw, N1, N2, PRECISION)
        real += a * c + b * d
        imaginary += a * d - b * c
    out = _inverse(real, imaginary, f1, f2, tw, N1, N2, PRECISION)
    at = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
    tl.store(dk + channel * TAPS + at, out, mask=at < TAPS)


def factors(fft_size: int) -> tuple[int, int]:
    """n1 >= n2, powers of two, n1 n2 = fft_size."""
    small = 1 << ((fft_size.bit_length() - 1) // 2)
    return fft_size // small, small


@cache
def _tables(fft_size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Real and imaginary parts of F_n1, F_n2 and the twiddles."""
    n1, n2 = factors(fft_size)
    found = (dft(n1), dft(n2), twiddles(n1, n2))
    return tuple(torch.stack([table.real, table.imag]).float().to(device) for table in found)  # type: ignore[return-value]


def _spectrum_of(k: Tensor, fft_size: int) -> Tensor:
    """(H, 2, n1, n2): the kernel's spectrum in the order of the stages."""
    n1, n2 = factors(fft_size)
    bins = torch.fft.fft(k.float(), n=fft_size).view(-1, n2, n1).transpose(1, 2)
    return torch.stack([bins.real, bins.imag], 1).contiguous()


def _precision(u: Tensor) -> str:
    return dot_precision() if u.dtype == torch.float32 else "tf32"


def convolve(u: Tensor, k: Tensor, fft_size: int, *, conjugate: bool = False) -> Tensor:
    """u (B, H, L), k (H, taps) -> y like u."""
    u = u.contiguous()
    y = torch.empty_like(u)
    n1, n2 = factors(fft_size)
    if u.numel():
        convolve_kernel[(u.shape[0] * u.shape[1],)](
            u, _spectrum_of(k, fft_size), *_tables(fft_size, u.device), y, u.shape[1], u.shape[2], N1=n1, N2=n2,
            CONJUGATE=conjugate, PRECISION=_precision(u), num_warps=WARPS,
        )  # fmt: skip
    return y


def correlate(u: Tensor, grad: Tensor, taps: int, fft_size: int) -> Tensor:
    """u and dy (B, H, L) -> dk (H, taps) in float32."""
    u, grad = u.contiguous(), grad.contiguous()
    batch, channels, length = u.shape
    dk = torch.empty(channels, taps, dtype=torch.float32, device=u.device)
    n1, n2 = factors(fft_size)
    if dk.numel():
        correlate_kernel[(channels,)](
            u, grad, *_tables(fft_size, u.device), dk, batch, channels, length, taps, N1=n1, N2=n2,
            PRECISION=_precision(u), num_warps=WARPS,
        )  # fmt: skip
    return dk


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """The smallest and the largest transforms (in bf16)."""
    for size in (SMALLEST, LARGEST_CORRELATION, LARGEST):
        n1, n2 = factors(size)
        types = {"u": "*bf16", "spectrum": "*fp32", "f1": "*fp32", "f2": "*fp32", "tw": "*fp32", "y": "*bf16"}
        types |= {"grad": "*bf16", "dk": "*fp32"} | dict.fromkeys(("B", "H", "L", "TAPS"), "i32")
        constants = {"N1": n1, "N2": n2, "PRECISION": "ieee" if amd else "tf32"}
        options = {"num_warps": WARPS}
        if size <= LARGEST_CORRELATION:
            yield Configuration(f"correlate {size}", correlate_kernel, types, constants, ("L",), options)
        constants = constants | {"CONJUGATE": True}
        yield Configuration(f"convolve {size}", convolve_kernel, types, constants, ("L",), options)
