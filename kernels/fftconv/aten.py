"""The same through torch.fft; on a CPU a few rows at a time, so that their spectra stay in the cache."""

import torch
from torch import Tensor

from zoo.kernels.dispatch import exporting, traced

TILE, ROWS = 256 * 1024, 32
"""Numbers transformed at a time (1 MiB of float32), and at least so many rows: every call plans its transform anew."""


def convolve(u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, size: int) -> Tensor:
    """u and the gates (B, H, L), k (H, K) -> out_gate iFFT(FFT(in_gate u) FFT(k))[:L], (B, H, L)."""
    given = [tensor for tensor in (u, k, in_gate, out_gate) if tensor is not None]
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    if learns or not u.numel() or u.device.type != "cpu" or traced():
        x = u if in_gate is None else u * in_gate
        if not exporting() and not u.numel():  # which transforms refuse
            y = x * k.sum(1, keepdim=True)
        else:
            spectrum = torch.fft.rfft(wide(x), n=size) * torch.fft.rfft(wide(k), n=size)
            y = torch.fft.irfft(spectrum, n=size)[..., : u.shape[2]].to(u.dtype)
        return y if out_gate is None else y * out_gate
    return _tiled(u, k, in_gate, out_gate, size)


def _tiled(u: Tensor, k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, size: int) -> Tensor:
    """The same by tiles of some images and channels, without a gradient; what is little more than a tile at once."""
    batch, channels, _ = u.shape
    rows = max(ROWS, TILE // size)
    if batch * channels <= 2 * rows:
        return _in_place(u, torch.fft.rfft(wide(k), n=size), in_gate, out_gate, size)
    images = max(1, min(batch, rows))
    step = max(1, rows // images)
    gates = [None if gate is None else gate.expand_as(u) for gate in (in_gate, out_gate)]
    y = torch.empty_like(u, dtype=torch.result_type(u, u if out_gate is None else out_gate))
    for h in range(0, channels, step):
        of_k = torch.fft.rfft(wide(k[h : h + step]), n=size)
        for b in range(0, batch, images):
            place = slice(b, b + images), slice(h, h + step)
            before, after = (None if gate is None else gate[place] for gate in gates)
            y[place] = _in_place(u[place], of_k, before, after, size)
    return y


def _in_place(u: Tensor, of_k: Tensor, in_gate: Tensor | None, out_gate: Tensor | None, size: int) -> Tensor:
    """With the spectrum of k given, and that of u overwritten."""
    spectrum = torch.fft.rfft(wide(u if in_gate is None else u * in_gate), n=size).mul_(of_k)
    y = torch.fft.irfft(spectrum, n=size)[..., : u.shape[2]].to(u.dtype)
    return y if out_gate is None else y * out_gate


def wide(x: Tensor) -> Tensor:
    """x in float32, where the transforms are done, or in float64 as it is."""
    return x if x.dtype == torch.float64 else x.float()
