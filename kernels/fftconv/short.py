"""Transforms of 256 to 2048 points: one program transforms a whole row on chip, n = N1 N2 (arXiv 2311.05908).

The spectrum is kept in the order in which the two stages produce it, so nothing is ever permuted.
"""

import triton
import triton.language as tl

from zoo.kernels.fftconv.transform import back_to_real, load_signal, load_table, store_signal, transform, turn

# fmt: off


@triton.jit
def convolve_kernel(
    u, spectrum, in_gate, out_gate, f1, f2, tw, y, H, L,
    N1: tl.constexpr, N2: tl.constexpr, PRECISION: tl.constexpr,
):
    """y = out_gate iFFT(FFT(in_gate u) K): one program for each row (b, h)."""
    row = tl.program_id(0).to(tl.int64)
    kernel = spectrum + (row % H) * 2 * N1 * N2
    at = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
    if in_gate is not None:
        in_gate += row * L
    if out_gate is not None:
        out_gate += row * L
    a, b = transform(load_signal(u + row * L, in_gate, at, L), None, f1, f2, tw, N1, N2, PRECISION)
    c, d = load_table(kernel, N1, N2), load_table(kernel + N1 * N2, N1, N2)
    a, b = turn(a, b, c, d)
    out = back_to_real(a, b, f1, f2, tw, N1, N2, PRECISION) / (N1 * N2)
    store_signal(y + row * L, out_gate, at, L, out)


@triton.jit
def correlate_kernel(
    u, grad, in_gate, out_gate, f1, f2, tw, dk, B, H, L, TAPS,
    N1: tl.constexpr, N2: tl.constexpr, PRECISION: tl.constexpr,
):
    """dk = iFFT(sum_b conj(FFT(in_gate u)) FFT(out_gate dy)): one program for each channel."""
    channel = tl.program_id(0).to(tl.int64)
    real = tl.zeros((N1, N2), tl.float32)
    imaginary = tl.zeros((N1, N2), tl.float32)
    at = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
    for batch in range(0, B):
        row = (batch * H + channel) * L
        gate_u, gate_dy = in_gate, out_gate
        if in_gate is not None:
            gate_u = in_gate + row
        if out_gate is not None:
            gate_dy = out_gate + row
        a, b = transform(load_signal(u + row, gate_u, at, L), None, f1, f2, tw, N1, N2, PRECISION)
        c, d = transform(load_signal(grad + row, gate_dy, at, L), None, f1, f2, tw, N1, N2, PRECISION)
        real += a * c + b * d
        imaginary += a * d - b * c
    out = back_to_real(real, imaginary, f1, f2, tw, N1, N2, PRECISION) / (N1 * N2)
    store_signal(dk + channel * TAPS, None, at, TAPS, out)
