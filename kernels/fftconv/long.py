"""Transforms of 4096 points and more: n = N0 (N1 N2), three stages in one launch (arXiv 2311.05908, order 3).

A program owns a row from reading u to writing y; what does not fit on the chip between the stages, (N0, N1 N2) complex
values, lies in `scratch`, which is small enough for the cache because a program works through many rows:

    spread    scratch = (F0 x) T0, for blocks of columns          x = u as (N0, N1 N2)
    per row   scratch[k0] = back(K[k0] transform(scratch[k0]))     transforms of N1 N2 points in registers
    gather    y = Re(conj(F0) (scratch conj(T0))) / n

T0[k0, j] = exp(-2 pi i k0 j / n); scratch[k0] holds the bins k0 + N0 (k1 + N1 k2). A barrier parts the stages.
"""

import triton
import triton.language as tl

from zoo.kernels.fftconv.transform import back, from_left, load_signal, load_table, store_signal, transform, turn

# fmt: off


@triton.jit
def spread(u, gate, f0, t0, scratch, L, N0: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
           PRECISION: tl.constexpr):
    """scratch [2, N0, N] = (F0 x) T0 of a real row of L values; what lies in it already is read no more."""
    tl.debug_barrier()
    for first in range(0, N, BLOCK):
        at = tl.arange(0, N0)[:, None] * N + first + tl.arange(0, BLOCK)[None, :]
        x = load_signal(u, gate, at, L)
        a, b = from_left(load_table(f0, N0, N0), load_table(f0 + N0 * N0, N0, N0), x, None, PRECISION)
        a, b = turn(a, b, tl.load(t0 + at), tl.load(t0 + N0 * N + at))
        tl.store(scratch + at, a)
        tl.store(scratch + N0 * N + at, b)
    tl.debug_barrier()


@triton.jit
def gather(scratch, f0, t0, y, gate, L, N0: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
           PRECISION: tl.constexpr):
    """y = Re(conj(F0) (scratch conj(T0))) / n, the first L values."""
    tl.debug_barrier()
    for first in range(0, N, BLOCK):
        at = tl.arange(0, N0)[:, None] * N + first + tl.arange(0, BLOCK)[None, :]
        a, b = turn(tl.load(scratch + at), tl.load(scratch + N0 * N + at), tl.load(t0 + at), -tl.load(t0 + N0 * N + at))
        out = tl.dot(load_table(f0, N0, N0), a, input_precision=PRECISION)
        out = tl.dot(load_table(f0 + N0 * N0, N0, N0), b, out, input_precision=PRECISION)
        store_signal(y, gate, at, L, out / (N0 * N))


@triton.jit
def convolve_long_kernel(
    u, spectrum, in_gate, out_gate, f0, t0, f1, f2, tw, scratch, y, ROWS, H, L,
    N0: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):
    """y = out_gate iFFT(FFT(in_gate u) K): a program takes every P-th row (b, h) of P programs."""
    N: tl.constexpr = N1 * N2
    scratch += tl.program_id(0).to(tl.int64) * 2 * N0 * N
    for index in range(tl.program_id(0), ROWS, tl.num_programs(0)):
        row = tl.cast(index, tl.int64)
        kernel = spectrum + (row % H) * 2 * N0 * N
        gate_u, gate_y = in_gate, out_gate
        if in_gate is not None:
            gate_u = in_gate + row * L
        if out_gate is not None:
            gate_y = out_gate + row * L
        spread(u + row * L, gate_u, f0, t0, scratch, L, N0, N, BLOCK, PRECISION)
        for k0 in range(0, N0):
            a, b = load_table(scratch + k0 * N, N1, N2), load_table(scratch + (N0 + k0) * N, N1, N2)
            a, b = transform(a, b, f1, f2, tw, N1, N2, PRECISION)
            c, d = load_table(kernel + k0 * N, N1, N2), load_table(kernel + (N0 + k0) * N, N1, N2)
            a, b = turn(a, b, c, d)
            a, b = back(a, b, f1, f2, tw, N1, N2, PRECISION)
            place = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
            tl.store(scratch + k0 * N + place, a)
            tl.store(scratch + (N0 + k0) * N + place, b)
        gather(scratch, f0, t0, y + row * L, gate_y, L, N0, N, BLOCK, PRECISION)


@triton.jit
def correlate_long_kernel(
    u, grad, in_gate, out_gate, f0, t0, f1, f2, tw, scratch, dk, B, H, L, TAPS,
    N0: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):
    """dk = iFFT(sum_b conj(FFT(in_gate u)) FFT(out_gate dy)): a program takes every P-th channel.

    scratch [programs, 3, 2, N0, N1 N2]: the stages of u, those of dy, and the sum over the batch.
    """
    N: tl.constexpr = N1 * N2
    of_u = scratch + tl.program_id(0).to(tl.int64) * 6 * N0 * N
    of_grad = of_u + 2 * N0 * N
    total = of_grad + 2 * N0 * N
    place = tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]
    for index in range(tl.program_id(0), H, tl.num_programs(0)):
        channel = tl.cast(index, tl.int64)
        for batch in range(0, B):
            row = (batch * H + channel) * L
            gate_u, gate_dy = in_gate, out_gate
            if in_gate is not None:
                gate_u = in_gate + row
            if out_gate is not None:
                gate_dy = out_gate + row
            spread(u + row, gate_u, f0, t0, of_u, L, N0, N, BLOCK, PRECISION)
            spread(grad + row, gate_dy, f0, t0, of_grad, L, N0, N, BLOCK, PRECISION)
            for k0 in range(0, N0):
                a, b = load_table(of_u + k0 * N, N1, N2), load_table(of_u + (N0 + k0) * N, N1, N2)
                a, b = transform(a, b, f1, f2, tw, N1, N2, PRECISION)
                c, d = load_table(of_grad + k0 * N, N1, N2), load_table(of_grad + (N0 + k0) * N, N1, N2)
                c, d = transform(c, d, f1, f2, tw, N1, N2, PRECISION)
                real, imaginary = turn(a, -b, c, d)
                real += tl.load(total + k0 * N + place, mask=place < N * tl.minimum(batch, 1), other=0.0)
                imaginary += tl.load(total + (N0 + k0) * N + place, mask=place < N * tl.minimum(batch, 1), other=0.0)
                tl.store(total + k0 * N + place, real)
                tl.store(total + (N0 + k0) * N + place, imaginary)
            tl.debug_barrier()
        for k0 in range(0, N0):
            a, b = load_table(total + k0 * N, N1, N2), load_table(total + (N0 + k0) * N, N1, N2)
            a, b = back(a, b, f1, f2, tw, N1, N2, PRECISION)
            tl.store(total + k0 * N + place, a)
            tl.store(total + (N0 + k0) * N + place, b)
        gather(total, f0, t0, dk + channel * TAPS, None, TAPS, N0, N, BLOCK, PRECISION)
        tl.debug_barrier()
