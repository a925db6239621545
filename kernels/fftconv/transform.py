"""The small Fourier transforms of which long ones are made, on tiles in registers: two matrix products and twiddles.

    forward   ((F1 x) T) F2          inverse   conj(F1) ((z conj(F2)) conj(T)), without the 1 / n

A complex matrix is two float32 tiles (real, imaginary); a table of one is the two behind each other in memory.
"""

import triton
import triton.language as tl

# fmt: off


@triton.jit
def load_table(pointer, rows: tl.constexpr, columns: tl.constexpr):
    return tl.load(pointer + tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :])


@triton.jit
def load_signal(pointer, gate, at, L):
    """The values at the offsets `at` times their gate (None: 1), zero behind the end L."""
    x = tl.load(pointer + at, mask=at < L, other=0.0).to(tl.float32)
    if gate is not None:
        x *= tl.load(gate + at, mask=at < L, other=0.0).to(tl.float32)
    return x


@triton.jit
def store_signal(pointer, gate, at, L, values):
    if gate is not None:
        values *= tl.load(gate + at, mask=at < L, other=0.0).to(tl.float32)
    tl.store(pointer + at, values.to(pointer.dtype.element_ty), mask=at < L)


@triton.jit
def turn(a, b, c, s):
    """(a + i b) (c + i s)."""
    return a * c - b * s, a * s + b * c


@triton.jit
def from_left(real, imaginary, a, b, PRECISION: tl.constexpr):
    """(real + i imaginary) (a + i b) as matrices; b may be None."""
    x = tl.dot(real, a, input_precision=PRECISION)
    y = tl.dot(imaginary, a, input_precision=PRECISION)
    if b is not None:
        x -= tl.dot(imaginary, b, input_precision=PRECISION)
        y = tl.dot(real, b, y, input_precision=PRECISION)
    return x, y


@triton.jit
def from_right(a, b, real, imaginary, PRECISION: tl.constexpr):
    """(a + i b) (real + i imaginary) as matrices."""
    x = tl.dot(a, real, input_precision=PRECISION) - tl.dot(b, imaginary, input_precision=PRECISION)
    y = tl.dot(a, imaginary, input_precision=PRECISION)
    return x, tl.dot(b, real, y, input_precision=PRECISION)


@triton.jit
def transform(a, b, f1, f2, tw, N1: tl.constexpr, N2: tl.constexpr, PRECISION: tl.constexpr):
    """((F1 (a + i b)) T) F2 of (N1, N2) values; b None stands for a real signal."""
    a, b = from_left(load_table(f1, N1, N1), load_table(f1 + N1 * N1, N1, N1), a, b, PRECISION)
    a, b = turn(a, b, load_table(tw, N1, N2), load_table(tw + N1 * N2, N1, N2))
    return from_right(a, b, load_table(f2, N2, N2), load_table(f2 + N2 * N2, N2, N2), PRECISION)


@triton.jit
def back(a, b, f1, f2, tw, N1: tl.constexpr, N2: tl.constexpr, PRECISION: tl.constexpr):
    """conj(F1) (((a + i b) conj(F2)) conj(T))."""
    a, b = from_right(a, b, load_table(f2, N2, N2), -load_table(f2 + N2 * N2, N2, N2), PRECISION)
    a, b = turn(a, b, load_table(tw, N1, N2), -load_table(tw + N1 * N2, N1, N2))
    return from_left(load_table(f1, N1, N1), -load_table(f1 + N1 * N1, N1, N1), a, b, PRECISION)


@triton.jit
def back_to_real(a, b, f1, f2, tw, N1: tl.constexpr, N2: tl.constexpr, PRECISION: tl.constexpr):
    """The real part of `back`."""
    a, b = from_right(a, b, load_table(f2, N2, N2), -load_table(f2 + N2 * N2, N2, N2), PRECISION)
    a, b = turn(a, b, load_table(tw, N1, N2), -load_table(tw + N1 * N2, N1, N2))
    x = tl.dot(load_table(f1, N1, N1), a, input_precision=PRECISION)
    return tl.dot(load_table(f1 + N1 * N1, N1, N1), b, x, input_precision=PRECISION)
