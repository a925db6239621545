"""Monarch products on a GPU: two batched matrix products whose permutation is folded into strides.

One kernel multiplies batches of matrices with any strides; the forward and the four products of the backward differ in
nothing but strides, and no transposed copy is ever written. The gradients of weights are few tiles with long sums: they
are added up in parts, and the parts in a fixed order.
"""

import itertools
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.kernels.aot import Configuration
from zoo.kernels.dispatch import FUSED, dot_precision, dot_precisions, on_its_gpu, processors


@triton.jit
def product_kernel(
    a, b, c, Z, M, N, K, SHARE, a_batch, a_row, a_inner, b_batch, b_inner, b_column, c_part, c_batch, c_row, c_column,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """c[part, z, m, n] = sum of a[z, m, k] b[z, k, n] over the part's SHARE of k (a multiple of BK), each with its own
    strides. The batch z varies fastest over programs."""
    batch = (tl.program_id(0) % Z).to(tl.int64)
    m = (tl.program_id(0) // Z * BM + tl.arange(0, BM)).to(tl.int64)  # [BM]
    n = (tl.program_id(1) * BN + tl.arange(0, BN)).to(tl.int64)  # [BN]
    total = tl.zeros((BM, BN), tl.float32)
    first = tl.program_id(2) * SHARE
    for start in range(first, tl.minimum(first + SHARE, K), BK):
        k = (start + tl.arange(0, BK)).to(tl.int64)  # [BK]: the rows of x, in the gradients of weights
        a_at = a + batch * a_batch + m[:, None] * a_row + k[None, :] * a_inner
        b_at = b + batch * b_batch + k[:, None] * b_inner + n[None, :] * b_column
        left = tl.load(a_at, mask=(m[:, None] < M) & (k[None, :] < K), other=0.0)
        right = tl.load(b_at, mask=(k[:, None] < K) & (n[None, :] < N), other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    at = c + tl.program_id(2) * c_part + batch * c_batch + m[:, None] * c_row + n[None, :] * c_column
    tl.store(at, total.to(c.dtype.element_ty), mask=(m[:, None] < M) & (n[None, :] < N))


TILE = (64, 64, 32, 4, 3)
"""Rows, columns and inner size of a tile, warps, stages."""


WAVES = 4
"""Programs of a weight's gradient for each processor, at most: its sum over rows is divided among them."""

UNIT_STRIDES = {
    "h = w1 x": ("a_inner", "b_inner", "c_column"),
    "y = w2 h": ("a_batch", "b_inner", "c_batch"),
    "dw2 = dy h": ("a_batch", "b_batch", "c_column"),
    "dh = dy w2": ("a_batch", "b_column", "c_batch"),
    "dw1 = dh x": ("a_row", "b_column", "c_column"),
    "dx = dh w1": ("a_inner", "b_column", "c_column"),
}
"""Which strides of each product are 1."""
SUMMED = ("dw2 = dy h", "dw1 = dh x")
"""The products that are written in parts, in float32."""


def batched_product(a: Tensor, b: Tensor, c: Tensor) -> None:
    """c = a b for views (Z, M, K), (Z, K, N) and (Z, M, N) of any strides; c is written in place.

    A c with another axis in front, (parts, Z, M, N), gets the sums over parts of k. Where there is one entry PyTorch's
    stride is any number and none is taken: 1, as the table has it.
    """
    batch, rows, inner = a.shape
    columns = b.shape[2]
    if not c.numel():
        return
    c = c if c.ndim == 4 else c[None]
    strides = [1 if size == 1 else stride for it in (a, b, c) for size, stride in zip(it.shape, it.stride())]
    bm, bn, bk, warps, stages = TILE
    share = bk * triton.cdiv(inner, bk * len(c))
    product_kernel[(batch * triton.cdiv(rows, bm), triton.cdiv(columns, bn), len(c))](
        a, b, c, batch, rows, columns, inner, share, *strides, BM=bm, BN=bn, BK=bk,
        PRECISION=dot_precision(a.dtype), num_warps=warps, num_stages=stages, **FUSED,
    )  # fmt: skip


def summed_product(a: Tensor, b: Tensor, like: Tensor) -> Tensor:
    """a b like `like`, whose sums run over all rows of a batch: in parts where the tiles are too few for the GPU."""
    bm, bn, bk, _, _ = TILE
    tiles = like.shape[0] * triton.cdiv(like.shape[1], bm) * triton.cdiv(like.shape[2], bn)
    parts = max(1, min(triton.cdiv(a.shape[2], bk), WAVES * processors(a.device) // max(1, tiles)))
    partial = torch.empty(parts, *like.shape, dtype=torch.float32, device=a.device)
    batched_product(a, b, partial)
    return partial.sum(0).to(like.dtype)


def _views(x: Tensor, h: Tensor, y: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x as (k, B, p), h as stage 1 writes it (k, B, q), h as stage 2 reads it (l, B, r), y as (l, B, s)."""
    batch, (blocks, width, inner), (lanes, out, reach) = len(x), w1.shape, w2.shape
    return (
        x.view(batch, blocks, inner).transpose(0, 1),
        h.view(batch, blocks, width).transpose(0, 1),
        h.view(batch, reach, lanes).permute(2, 0, 1),
        y.view(batch, out, lanes).permute(2, 0, 1),
    )


@on_its_gpu
def forward(x: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, k p), w1 (k, q, p), w2 (l, s, r) -> y (B, s l) and the hidden product h (B, k q)."""
    x = x.contiguous()
    h = torch.empty(len(x), w1.shape[0] * w1.shape[1], dtype=x.dtype, device=x.device)
    y = torch.empty(len(x), w2.shape[0] * w2.shape[1], dtype=x.dtype, device=x.device)
    xs, written, read, ys = _views(x, h, y, w1, w2)
    batched_product(xs, w1.transpose(1, 2), written)
    batched_product(read, w2.transpose(1, 2), ys)
    return y, h


@on_its_gpu
def backward(grad: Tensor, x: Tensor, h: Tensor, w1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dw2 = dy^T h, dh = dy w2, dw1 = dh^T x, dx = dh w1, block by block."""
    x, grad = x.contiguous(), grad.contiguous()
    dx, dh = torch.empty_like(x), torch.empty_like(h)
    xs, _, read, dys = _views(x, h, grad, w1, w2)
    dxs, dh_written, dh_read, _ = _views(dx, dh, grad, w1, w2)
    dw2 = summed_product(dys.transpose(1, 2), read, w2)
    batched_product(dys, w2, dh_read)
    dw1 = summed_product(dh_written.transpose(1, 2), xs, w1)
    batched_product(dh_written, w1, dxs)
    return dx, dw1, dw2


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """Every configuration that `batched_product` can choose: dtypes, precisions, and which strides are 1.

    A stride of 1 is known to the compiler; every product of the forward and the backward has its own set.
    """
    bm, bn, bk, warps, stages = TILE
    strides = ("a_batch", "a_row", "a_inner", "b_batch", "b_inner", "b_column", "c_batch", "c_row", "c_column")
    sizes = ("Z", "M", "N", "K", "SHARE", *strides, "c_part")
    for word in ("fp32", "bf16"):
        types = {"a": f"*{word}", "b": f"*{word}", "c": f"*{word}"} | dict.fromkeys(sizes, "i32")
        for precision, (product, ones) in itertools.product(dot_precisions(word, amd=amd), UNIT_STRIDES.items()):
            fixed = dict.fromkeys(ones, 1)
            constants = {"BM": bm, "BN": bn, "BK": bk, "PRECISION": precision, **fixed}
            aligned = tuple(name for name in sizes if name not in fixed)
            options = {"num_warps": warps, "num_stages": stages}
            name = f"{product} {word}, {precision}"
            main = word == "bf16"  # float32 spills 8 bytes on sm_100
            written = types | {"c": "*fp32"} if product in SUMMED else types
            yield Configuration(name, product_kernel, written, constants, aligned, options, matrix=True, main=main)
