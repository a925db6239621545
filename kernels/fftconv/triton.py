"""FFT convolution on a GPU, after FlashFFTConv (Fu et al. 2024, arXiv 2311.05908): which kernel, and its tables.

Up to 2048 points a program keeps a whole row on chip (short.py); up to 65,536 it keeps a stage there and the row in the
cache (long.py). Either way u is read once and y written once, gates included.
"""

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from zoo.kernels.aot import Configuration
from zoo.kernels.dispatch import FUSED, dot_precision, dot_precisions, has_tf32, on_its_gpu
from zoo.kernels.fftconv.long import convolve_long_kernel, correlate_long_kernel
from zoo.kernels.fftconv.reference import dft, twiddles
from zoo.kernels.fftconv.short import convolve_kernel, correlate_kernel

FACTORS: dict[int, tuple[int, ...]] = {
    256: (16, 16),
    512: (32, 16),
    1024: (32, 32),
    2048: (64, 32),
    4096: (16, 16, 16),
    8192: (16, 32, 16),
    16384: (32, 32, 16),
    32768: (32, 32, 32),
    65536: (64, 32, 32),
}
"""Points of a transform and of the small ones that it is made of; none is below 16, the least for matrix units."""

LARGEST_CORRELATION = 512
"""Two short transforms and their running product fit the registers up to here; long ones always do."""

BLOCKS = {16: 64, 32: 64, 64: 32}
"""Columns that a long transform's first stage takes at a time."""

WARPS, LONG_WARPS = 8, 4
PROGRAMS = 264
"""Programs of a long transform: two on each of an H100's processors."""


@cache
def _tables(fft_size: int, device: torch.device) -> dict[str, Tensor]:
    """Real and imaginary parts of the small transforms' matrices and of the twiddles between them."""
    *outer, n1, n2 = FACTORS[fft_size]
    found = {"f1": dft(n1), "f2": dft(n2), "tw": twiddles(n1, n2)}
    if outer:
        found |= {"f0": dft(outer[0]), "t0": twiddles(outer[0], n1 * n2)}
    return {name: torch.stack([table.real, table.imag]).float().to(device) for name, table in found.items()}


def _sizes(fft_size: int, u: Tensor) -> dict[str, Any]:
    """The constants of a launch."""
    *outer, n1, n2 = FACTORS[fft_size]
    precision = dot_precision(u.dtype) if u.dtype == torch.float32 or not has_tf32() else "tf32"
    found: dict[str, Any] = {"N1": n1, "N2": n2, "PRECISION": precision, **FUSED}
    if outer:
        found |= {"N0": outer[0], "BLOCK": BLOCKS[outer[0]], "num_warps": LONG_WARPS, "num_stages": 1}
    else:
        found |= {"num_warps": WARPS}
    return found


def _spectrum_of(k: Tensor, fft_size: int, conjugate: bool) -> Tensor:
    """(H, 2, N0, N1, N2): the spectrum of k in the order of the stages, bin k0 + N0 (k1 + N1 k2), or its conjugate."""
    factors = FACTORS[fft_size]
    bins = torch.fft.fft(k.float(), n=fft_size).view(-1, *reversed(factors))
    bins = bins.permute(0, *range(len(factors), 0, -1))
    return torch.stack([bins.real, -bins.imag if conjugate else bins.imag], 1).contiguous()


def _signal(u: Tensor) -> Tensor:
    """float16 as float32: matrix units cut off what TF32 does not hold, up to 2^-10, which bfloat16 alone lacks too."""
    return (u.float() if u.dtype == torch.float16 else u).contiguous()


def _gates(u: Tensor, **gates: Tensor | None) -> dict[str, Tensor | None]:
    """Gates in the shape of u: in bfloat16 where all are, and u too, else in float32."""
    given = [gate for gate in gates.values() if gate is not None]
    narrow = all(tensor.dtype == torch.bfloat16 for tensor in (u, *given))
    kind = torch.bfloat16 if narrow else torch.float32
    return {name: None if gate is None else gate.expand_as(u).to(kind).contiguous() for name, gate in gates.items()}


@on_its_gpu
def convolve(
    u: Tensor,
    k: Tensor,
    fft_size: int,
    *,
    in_gate: Tensor | None = None,
    out_gate: Tensor | None = None,
    conjugate: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """u (B, H, L), k (H, taps), gates that broadcast to u -> y (B, H, L) of the given dtype, else that of u.

    conjugate: with conj(FFT(k)), which is the gradient's convolution.
    """
    y = torch.empty(u.shape, dtype=dtype or u.dtype, device=u.device)
    u = _signal(u)
    rows, (channels, length) = u.shape[0] * u.shape[1], u.shape[1:]
    if not u.numel():
        return y
    given = {"u": u, "spectrum": _spectrum_of(k, fft_size, conjugate), "y": y, "H": channels, "L": length}
    given |= _gates(u, in_gate=in_gate, out_gate=out_gate) | _tables(fft_size, u.device) | _sizes(fft_size, u)
    if "N0" not in given:
        convolve_kernel[(rows,)](**given)
        return y
    programs = min(rows, PROGRAMS)
    scratch = torch.empty(programs, 2, fft_size, dtype=torch.float32, device=u.device)
    convolve_long_kernel[(programs,)](**given, scratch=scratch, ROWS=rows)
    return y


def correlates(fft_size: int) -> bool:
    """Whether `correlate` does a transform of this size."""
    return fft_size <= LARGEST_CORRELATION or len(FACTORS[fft_size]) == 3


@on_its_gpu
def correlate(
    u: Tensor,
    grad: Tensor,
    taps: int,
    fft_size: int,
    *,
    in_gate: Tensor | None = None,
    out_gate: Tensor | None = None,
) -> Tensor:
    """u and dy (B, H, L) -> dk (H, taps) in float32."""
    u, grad = _signal(u), _signal(grad)
    batch, channels, length = u.shape
    dk = torch.empty(channels, taps, dtype=torch.float32, device=u.device)
    if not dk.numel() or not u.numel():
        return dk.zero_()
    given = {"u": u, "grad": grad, "dk": dk, "B": batch, "H": channels, "L": length, "TAPS": taps}
    given |= _gates(u, in_gate=in_gate, out_gate=out_gate) | _tables(fft_size, u.device) | _sizes(fft_size, u)
    if "N0" not in given:
        correlate_kernel[(channels,)](**given)
        return dk
    programs = min(channels, PROGRAMS)
    scratch = torch.empty(programs, 3, 2, fft_size, dtype=torch.float32, device=u.device)
    correlate_long_kernel[(programs,)](**given, scratch=scratch)
    return dk


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """Every size, with both gates (without them a kernel needs no more)."""
    tables = dict.fromkeys(("f0", "t0", "f1", "f2", "tw", "scratch", "spectrum", "dk"), "*fp32")
    scalars = dict.fromkeys(("B", "H", "L", "TAPS", "ROWS"), "i32")
    words = (("bf16", "bf16"), ("bf16", "fp32"), ("fp32", "fp32"))
    for (word, of_gates), size in itertools.product(words, FACTORS):
        types = tables | scalars | dict.fromkeys(("u", "grad", "y"), f"*{word}")
        types |= dict.fromkeys(("in_gate", "out_gate"), f"*{of_gates}")
        long = len(FACTORS[size]) == 3
        for precision in dot_precisions(word, amd=amd) if word == "fp32" else ("tf32",):
            *outer, n1, n2 = FACTORS[size]
            constants = {"N1": n1, "N2": n2, "PRECISION": precision}
            constants |= {"N0": outer[0], "BLOCK": BLOCKS[outer[0]]} if outer else {}
            options = {"num_warps": LONG_WARPS, "num_stages": 1} if outer else {"num_warps": WARPS}
            # larger ones, and float32 in three passes of TF32, spill a little
            main = word == "bf16" and size <= (8192 if amd else 16384)
            said: dict[str, Any] = {"aligned": ("L",), "options": options, "matrix": True, "main": main}
            said |= {"grows": ("in_gate", "out_gate"), "free": ("y",)}
            name = f"{size} points, {word}, {precision}{', float32 gates' * (of_gates != word)}"
            if correlates(size):
                kernel = correlate_long_kernel if long else correlate_kernel
                yield Configuration(f"correlate {name}", kernel, types, constants, **said)
            kernel = convolve_long_kernel if long else convolve_kernel
            yield Configuration(f"convolve {name}", kernel, types, constants, **said)
