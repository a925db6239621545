"""The group-rational function on a GPU, after FlashKAT (Raffel and Chen 2025, arXiv 2505.13813).

A program owns ROWS x BLOCK values of one group. Forward reads and writes each value once. Backward keeps the ten sums
for the coefficients in registers and writes one partial per program; the partials are added in a fixed order, where the
first kernels issued ten atomic additions for each value.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.kernels.aot import Configuration
from zoo.kernels.dispatch import FUSED, on_its_gpu
from zoo.kernels.rational import MOST_COEFFICIENTS


@triton.jit
def _polynomials(x, numerator, denominator, group, A: tl.constexpr, B: tl.constexpr):
    """P, Q, P' and sum_i i |b_i| |x|^(i-1) by Horner's rule, with A and B coefficients."""
    size = tl.abs(x)
    p, slope_p = tl.zeros_like(x), tl.zeros_like(x)
    for i in tl.static_range(A):
        slope_p = slope_p * x + p
        p = p * x + tl.load(numerator + group * A + A - 1 - i)
    q, slope_q = tl.zeros_like(x), tl.zeros_like(x)
    for i in tl.static_range(B):
        slope_q = slope_q * size + q
        q = q * size + tl.abs(tl.load(denominator + group * B + B - 1 - i))
    slope_q = slope_q * size + q
    return p, 1 + q * size, slope_p, slope_q


@triton.jit
def _tile(rows, D, WIDTH, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Offsets and mask of this program's tile, and its group."""
    group = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    column = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    at = row[:, None].to(tl.int64) * D + group * WIDTH + column[None, :]
    return at, (row[:, None] < rows) & (column[None, :] < WIDTH), group


@triton.jit
def forward_kernel(
    x, numerator, denominator, y, rows, D, WIDTH,
    A: tl.constexpr, B: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = P / Q."""
    at, inside, group = _tile(rows, D, WIDTH, ROWS, BLOCK)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    p, q, _, _ = _polynomials(value, numerator, denominator, group, A, B)
    tl.store(y + at, (p / q).to(y.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(
    grad, x, numerator, denominator, dx, partial, rows, D, WIDTH,
    A: tl.constexpr, B: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dx, and this program's share of the coefficients' gradients: partial[program, group, A + B]."""
    at, inside, group = _tile(rows, D, WIDTH, ROWS, BLOCK)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    p, q, slope_p, slope_q = _polynomials(value, numerator, denominator, group, A, B)
    weight = dy / q
    ratio = p * weight / q
    d = slope_p * weight - tl.where(value < 0, -ratio, ratio) * slope_q
    tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)
    program = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
    out = partial + (program.to(tl.int64) * tl.num_programs(1) + group) * (A + B)
    for i in tl.static_range(A):
        tl.store(out + i, tl.sum(weight))
        weight *= value
    size = tl.abs(value)
    for i in tl.static_range(B):
        ratio *= size
        sign = tl.where(tl.load(denominator + group * B + i) < 0, 1.0, -1.0)
        tl.store(out + A + i, sign * tl.sum(ratio))


BLOCKS = (16, 32, 64, 128, 256)
"""Columns of a tile."""


def _tiles(width: int) -> tuple[int, int, int]:
    """Rows and columns of a program's tile, and warps: 4096 values forward and backward."""
    block = next((block for block in BLOCKS if block >= width), BLOCKS[-1])
    return 4096 // block, block, 8


@on_its_gpu
def forward(x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """x (..., D), numerator (G, m + 1), denominator (G, n) -> y like x."""
    x = x.contiguous()
    y = torch.empty_like(x)
    if x.numel():
        grid, sizes = _launch(x, numerator, denominator)
        forward_kernel[grid](x, numerator.float().contiguous(), denominator.float().contiguous(), y, **sizes)
    return y


@on_its_gpu
def backward(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dx like x; da (G, m + 1) and db (G, n) in float32."""
    x, grad = x.contiguous(), grad.contiguous()
    groups, a = numerator.shape
    dx = torch.empty_like(x)
    if not x.numel():
        return dx, numerator.new_zeros(numerator.shape).float(), denominator.new_zeros(denominator.shape).float()
    grid, sizes = _launch(x, numerator, denominator)
    partial = torch.empty(grid[0] * grid[2], groups, a + denominator.shape[1], device=x.device)
    coefficients = numerator.float().contiguous(), denominator.float().contiguous()
    backward_kernel[grid](grad, x, *coefficients, dx, partial, **sizes)
    return dx, partial[..., :a].sum(0), partial[..., a:].sum(0)


def _launch(x: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[tuple[int, int, int], dict[str, int]]:
    dim, groups = x.shape[-1], numerator.shape[0]
    rows, width = x.numel() // dim, dim // groups
    height, block, warps = _tiles(width)
    sizes = {"rows": rows, "D": dim, "WIDTH": width, "A": numerator.shape[1], "B": denominator.shape[1]}
    sizes |= {"ROWS": height, "BLOCK": block, "num_warps": warps, **FUSED}
    return (triton.cdiv(rows, height), groups, triton.cdiv(width, block)), sizes


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """Every tile that the launchers can choose, with KAT's six and four coefficients, and with the most, which stand
    for all fewer ("bf16" stands for fp16 too)."""
    most = MOST_COEFFICIENTS
    for word, block, (above, below) in itertools.product(("bf16", "fp32"), BLOCKS, ((6, 4), (most, most))):
        height, block, warps = _tiles(block)
        types = {"x": f"*{word}", "numerator": "*fp32", "denominator": "*fp32", "y": f"*{word}", "rows": "i32"}
        types |= {"D": "i32", "WIDTH": "i32", "grad": f"*{word}", "dx": f"*{word}", "partial": "*fp32"}
        constants = {"A": above, "B": below, "ROWS": height, "BLOCK": block}
        for name, kernel in (("forward", forward_kernel), ("backward", backward_kernel)):
            said: dict[str, Any] = {"options": {"num_warps": warps}, "grows": ("A", "B"), "main": above == 6}
            words = f"{name} {word} by {block}{', most coefficients' * (above == most)}"
            yield Configuration(words, kernel, types, constants, ("D", "WIDTH"), **said)
