"""Long depthwise convolutions: every channel with its own kernel, as long as the sequence, by FFT.

y = fftconv(u, k)                                        # causal
y = fftconv(u, k, in_gate=a, out_gate=b)                 # b * (k conv (a * u))
"""

import torch
from torch import Tensor

from zoo.kernels.dispatch import exporting, runs_triton

__all__ = ["fftconv"]


def fftconv(
    u: Tensor,
    k: Tensor,
    *,
    fft_size: int | None = None,
    in_gate: Tensor | None = None,
    out_gate: Tensor | None = None,
    taps: int | None = None,
    frequencies: int | None = None,
) -> Tensor:
    """y = out_gate * iFFT(FFT(in_gate * u) FFT(k))[:L], differentiable in everything.

    Args:
        u: (B, H, L); the result has its dtype, the transforms are done in float32 or wider.
        k: (H, K) real taps.
        fft_size: n of the circular convolution. None = causal: y[t] = sum_s k[s] u[t - s], with an n that is large
            enough. n = L wraps around; n >= L + K - 1 is causal too.
        in_gate, out_gate: (B, H, L) or broadcastable.
        taps: keep the first taps of k only (a partial convolution).
        frequencies: keep the spectrum of k below this bin of a real transform of size n (2 L when causal) only.
    Raises:
        ValueError: shapes that do not fit, or an fft_size below L or K.
    """
    if u.ndim != 3 or k.ndim != 2 or u.shape[1] != k.shape[0]:
        raise ValueError(f"fftconv: u {tuple(u.shape)} and k {tuple(k.shape)}, expected (B, H, L) and (H, K)")
    k = k if taps is None else k[:, :taps]
    if frequencies is not None:
        fft_size = 2 * u.shape[2] if fft_size is None else fft_size
        spectrum = torch.fft.rfft(_wide(k), n=fft_size)
        kept = torch.arange(spectrum.shape[1], device=k.device) < frequencies
        k = torch.fft.irfft(spectrum * kept, n=fft_size).to(k.dtype)
    if fft_size is not None and fft_size < max(u.shape[2], k.shape[1]):
        raise ValueError(f"fftconv: fft_size {fft_size} is below the length {u.shape[2]} or the taps {k.shape[1]}")
    gated = u if in_gate is None else u * in_gate
    size = _size(u.shape[2], k.shape[1], fft_size, kernel=_runs_kernel(u, k, fft_size))
    y = torch.ops.zoo.fftconv(gated, k, size) if _runs_kernel(u, k, size) else _aten(gated, k, size)
    return y if out_gate is None else y * out_gate


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _runs_kernel(u: Tensor, k: Tensor, fft_size: int | None) -> bool:
    """Whether the kernel does a transform of this size (None: whatever a causal convolution needs)."""
    if exporting() or not runs_triton(u, k):
        return False
    from zoo.kernels.fftconv.triton import LARGEST, SMALLEST

    size = u.shape[2] + k.shape[1] - 1 if fft_size is None else fft_size
    return size <= LARGEST and (fft_size is None or (size >= SMALLEST and size & (size - 1) == 0))


def _size(length: int, taps: int, fft_size: int | None, *, kernel: bool) -> int:
    """The given size, or for a causal convolution the next one that is fast."""
    if fft_size is not None:
        return fft_size
    least = max(2, length + taps - 1)
    if kernel:
        return max(256, 1 << (least - 1).bit_length())
    power = 1 << (least - 1).bit_length()
    smooth = [power // 16 * factor for factor in (9, 10, 12, 15, 16) if power >= 16 and power // 16 * factor >= least]
    return min([power, *smooth])


def _aten(u: Tensor, k: Tensor, size: int) -> Tensor:
    spectrum = torch.fft.rfft(_wide(u), n=size) * torch.fft.rfft(_wide(k), n=size)
    return torch.fft.irfft(spectrum, n=size)[..., : u.shape[2]].to(u.dtype)


@torch.library.custom_op("zoo::fftconv", mutates_args=())
def _fftconv(u: Tensor, k: Tensor, fft_size: int) -> Tensor:
    if _runs_kernel(u, k, fft_size):
        from zoo.kernels.fftconv.triton import convolve

        return convolve(u, k, fft_size)
    return _aten(u, k, fft_size).contiguous()


@_fftconv.register_fake
def _(u: Tensor, k: Tensor, fft_size: int) -> Tensor:
    return u.new_empty(u.shape)


@torch.library.custom_op("zoo::fftconv_backward", mutates_args=())
def _fftconv_backward(grad: Tensor, u: Tensor, k: Tensor, fft_size: int) -> tuple[Tensor, Tensor]:
    """du = iFFT(FFT(dy) conj(K))[:L], dk = iFFT(sum_b conj(U) FFT(dy))[:K]."""
    taps = k.shape[1]
    if _runs_kernel(u, k, fft_size):
        from zoo.kernels.fftconv.triton import LARGEST_CORRELATION, convolve, correlate

        du = convolve(grad, k, fft_size, conjugate=True)
        if fft_size <= LARGEST_CORRELATION:
            return du, correlate(u, grad, taps, fft_size).to(k.dtype)
        spectrum = torch.fft.rfft(_wide(u), n=fft_size).conj_physical() * torch.fft.rfft(_wide(grad), n=fft_size)
        return du, torch.fft.irfft(spectrum.sum(0), n=fft_size)[..., :taps].to(k.dtype).contiguous()
    # conj_physical: below the compiler's dispatch a lazy conj() would be lost
    of_grad = torch.fft.rfft(_wide(grad), n=fft_size)
    of_u, of_k = torch.fft.rfft(_wide(u), n=fft_size), torch.fft.rfft(_wide(k), n=fft_size)
    du = torch.fft.irfft(of_grad * of_k.conj_physical(), n=fft_size)[..., : u.shape[2]].to(u.dtype)
    dk = torch.fft.irfft((of_u.conj_physical() * of_grad).sum(0), n=fft_size)[..., :taps].to(k.dtype)
    return du.contiguous(), dk.contiguous()


@_fftconv_backward.register_fake
def _(grad: Tensor, u: Tensor, k: Tensor, fft_size: int) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), k.new_empty(k.shape)


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.fft_size = inputs[2]


def _backward(ctx, grad: Tensor):
    return *torch.ops.zoo.fftconv_backward(grad, *ctx.saved_tensors, ctx.fft_size), None


_fftconv.register_autograd(_backward, setup_context=_save)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("zoo::fftconv", _device, torch.float32)
