"""Long depthwise convolutions: every channel with its own kernel, as long as the sequence, by FFT.

y = fftconv(u, k)                                        # causal
y = fftconv(u, k, in_gate=a, out_gate=b)                 # b * (k conv (a * u))
"""

import torch
from torch import Tensor

from zoo.kernels.dispatch import exporting, runs_triton
from zoo.kernels.fftconv import aten
from zoo.kernels.fftconv.aten import wide

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
    """y = out_gate * iFFT(FFT(in_gate * u) FFT(k))[:L], differentiable in everything, any length L.

    Args:
        u: (B, H, L); the result has its dtype, the transforms are done in float32 or wider.
        k: (H, K) real taps.
        fft_size: n of the circular convolution. None = causal: y[t] = sum_s k[s] u[t - s], with an n that is large
            enough. n = L wraps around; n >= L + K - 1 is causal too.
        in_gate, out_gate: (B, H, L) or broadcastable.
        taps: keep the first taps of k only (a partial convolution).
        frequencies: keep the spectrum of k below this bin of a real transform of size n (2 L when causal) only.
    Raises:
        ValueError: shapes that do not fit, no taps, or an fft_size below L or K.
    """
    if u.ndim != 3 or k.ndim != 2 or u.shape[1] != k.shape[0]:
        raise ValueError(f"fftconv: u {tuple(u.shape)} and k {tuple(k.shape)}, expected (B, H, L) and (H, K)")
    if not k.shape[1] or (taps is not None and taps < 1):
        given = k.shape[1] if taps is None else taps
        raise ValueError(f"fftconv: {given} taps of k {tuple(k.shape)}, expected 1 or more")
    k = k if taps is None else k[:, :taps]
    if frequencies is not None:
        fft_size = 2 * u.shape[2] if fft_size is None else fft_size
        spectrum = torch.fft.rfft(wide(k), n=fft_size)
        kept = torch.arange(spectrum.shape[1], device=k.device) < frequencies
        k = torch.fft.irfft(spectrum * kept, n=fft_size).to(k.dtype)
    if fft_size is not None and fft_size < max(u.shape[2], k.shape[1]):
        raise ValueError(f"fftconv: fft_size {fft_size} is below the length {u.shape[2]} or the taps {k.shape[1]}")
    kernel = runs_kernel(u, k, in_gate, out_gate, fft_size=fft_size)
    size = _size(u.shape[2], k.shape[1], fft_size, kernel=kernel)
    run = torch.ops.zoo.fftconv if kernel else aten.convolve
    return run(u, k, in_gate, out_gate, size).to(u.dtype)  # autocast and wider gates make it float32


def runs_kernel(*tensors: Tensor | None, fft_size: int | None) -> bool:
    """Whether the kernel runs for (u, k, gates) and a size (None: whatever a causal convolution needs)."""
    given = [tensor for tensor in tensors if tensor is not None]
    if exporting() or not runs_triton(*given):
        return False
    from zoo.kernels.fftconv.triton import FACTORS

    if fft_size is None:
        return given[0].shape[2] + given[1].shape[1] - 1 <= max(FACTORS)
    return fft_size in FACTORS


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


@torch.library.custom_op("zoo::fftconv", mutates_args=())
def _fftconv(u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, fft_size: int) -> Tensor:
    if runs_kernel(u, k, in_gate, out_gate, fft_size=fft_size):
        from zoo.kernels.fftconv.triton import convolve

        return convolve(u, k, fft_size, in_gate=in_gate, out_gate=out_gate)
    return aten.convolve(u, k, in_gate, out_gate, fft_size).contiguous()


@_fftconv.register_fake
def _(u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, fft_size: int) -> Tensor:
    return u.new_empty(u.shape)


@torch.library.custom_op("zoo::fftconv_backward", mutates_args=())
def _fftconv_backward(
    grad: Tensor, u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, fft_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """With x = in_gate u and dz = out_gate dy: dx = iFFT(FFT(dz) conj(K))[:L], dk = iFFT(sum_b conj(X) FFT(dz))[:K],

    du = in_gate dx, din_gate = u dx, dout_gate = dy conv(x); gates that are absent have an empty gradient.
    """
    run = _convolve_kernel if runs_kernel(u, k, in_gate, out_gate, fft_size=fft_size) else _convolve_aten
    dx = run(grad, k, out_gate, fft_size, True)
    du = (dx if in_gate is None else dx * in_gate).to(u.dtype)
    din, dout = u.new_empty(0), u.new_empty(0)
    if in_gate is not None:
        din = (dx * u).sum_to_size(in_gate.shape).to(in_gate.dtype)
    if out_gate is not None:
        dout = (run(u, k, in_gate, fft_size, False) * grad).sum_to_size(out_gate.shape).to(out_gate.dtype)
    dk = _correlate(grad, u, k, in_gate, out_gate, fft_size)
    return du.contiguous(), dk.contiguous(), din.contiguous(), dout.contiguous()


def _convolve_kernel(x: Tensor, k: Tensor, gate: Tensor | None, fft_size: int, conjugate: bool) -> Tensor:
    from zoo.kernels.fftconv.triton import convolve

    return convolve(x, k, fft_size, in_gate=gate, conjugate=conjugate, dtype=torch.float32)


def _convolve_aten(x: Tensor, k: Tensor, gate: Tensor | None, fft_size: int, conjugate: bool) -> Tensor:
    of_k = torch.fft.rfft(wide(k), n=fft_size)
    # conj_physical: below the compiler's dispatch a lazy conj() would be lost
    of_k = of_k.conj_physical() if conjugate else of_k
    gated = wide(x) if gate is None else wide(x) * gate
    return torch.fft.irfft(torch.fft.rfft(gated, n=fft_size) * of_k, n=fft_size)[..., : x.shape[2]]


def _correlate(
    grad: Tensor, u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, fft_size: int
) -> Tensor:
    """dk of `_fftconv_backward`."""
    if runs_kernel(u, k, in_gate, out_gate, fft_size=fft_size):
        from zoo.kernels.fftconv.triton import correlate, correlates

        if correlates(fft_size):
            return correlate(u, grad, k.shape[1], fft_size, in_gate=in_gate, out_gate=out_gate).to(k.dtype)
    x = wide(u) if in_gate is None else wide(u) * in_gate
    dz = wide(grad) if out_gate is None else wide(grad) * out_gate
    spectrum = torch.fft.rfft(x, n=fft_size).conj_physical() * torch.fft.rfft(dz, n=fft_size)
    return torch.fft.irfft(spectrum.sum(0), n=fft_size)[..., : k.shape[1]].to(k.dtype)


@_fftconv_backward.register_fake
def _(
    grad: Tensor, u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, fft_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    din, dout = (u.new_empty(0) if gate is None else gate.new_empty(gate.shape) for gate in (in_gate, out_gate))
    return u.new_empty(u.shape), k.new_empty(k.shape), din, dout


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.fft_size = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad: Tensor):
    du, dk, din, dout = torch.ops.zoo.fftconv_backward(grad, *ctx.saved_tensors, ctx.fft_size)
    _, _, in_gate, out_gate = ctx.saved_tensors
    return du, dk, None if in_gate is None else din, None if out_gate is None else dout, None


_fftconv.register_autograd(_backward, setup_context=_save)
for _device in ("cpu", "cuda"):
    torch.library.register_autocast("zoo::fftconv", _device, torch.float32)
