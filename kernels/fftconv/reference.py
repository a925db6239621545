"""Long convolutions by FFT, and the Monarch form of the FFT, as plain PyTorch.

    y = iFFT_n(FFT_n(u) FFT_n(k))[:L]      circular of size n; equal to the causal convolution when n >= L + taps - 1

A DFT of n = n1 n2 points is two small ones with twiddles between (FlashFFTConv, Fu et al. 2024, arXiv 2311.05908):
X = u as (n1, n2), A = (F_n1 X) T with T[k1, j2] = exp(-2 pi i k1 j2 / n), Z = A F_n2, and Z[k1, k2] is bin k1 + n1 k2.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def fftconv(u: Tensor, k: Tensor, fft_size: int) -> Tensor:
    """u (B, H, L), k (H, taps) -> (B, H, L), by the definition of the circular convolution."""
    length, taps = u.shape[-1], k.shape[-1]
    lag = (torch.arange(length)[:, None] - torch.arange(length)) % fft_size  # [output, input]
    padded = torch.nn.functional.pad(k, (0, max(0, fft_size - taps)))[:, :fft_size]
    return torch.einsum("hts,bhs->bht", padded[:, lag], u)


def dft(n: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    """F[a, b] = exp(-2 pi i a b / n), with the exponent reduced first: exact for every n."""
    index = torch.arange(n)
    angle = (index[:, None] * index % n).double() * (-2 * math.pi / n)
    return torch.polar(torch.ones_like(angle), angle).to(dtype)


def twiddles(n1: int, n2: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    """T[k1, j2] = exp(-2 pi i k1 j2 / (n1 n2))."""
    angle = (torch.arange(n1)[:, None] * torch.arange(n2)).double() * (-2 * math.pi / (n1 * n2))
    return torch.polar(torch.ones_like(angle), angle).to(dtype)


def monarch_dft(x: Tensor, n1: int, n2: int) -> tuple[Tensor, Tensor]:
    """x (..., n1 n2) -> both stages (..., n1, n2); the second holds bin k1 + n1 k2 at [k1, k2]."""
    kind = torch.promote_types(x.dtype, torch.complex64)
    stage = (dft(n1, kind) @ x.reshape(*x.shape[:-1], n1, n2).to(kind)) * twiddles(n1, n2, kind)
    return stage, stage @ dft(n2, kind)


def block_dft(x: Tensor, largest: int, matrices: Mapping[int, Tensor] | None = None) -> Tensor:
    """DFT (..., n) -> (..., n) in stages of at most `largest` points (FlashButterfly, arXiv 2302.06646).

    `matrices` (size -> complex matrix) replaces the small DFTs by learned ones.
    """
    n = x.shape[-1]
    if n <= largest:
        small = dft(n, x.dtype) if matrices is None else matrices[n]
        return x @ small.t()
    outer, inner = largest, n // largest
    small = dft(outer, x.dtype) if matrices is None else matrices[outer]
    stage = (small @ x.reshape(*x.shape[:-1], outer, inner)) * twiddles(outer, inner, x.dtype)
    return block_dft(stage, largest, matrices).transpose(-1, -2).flatten(-2)
