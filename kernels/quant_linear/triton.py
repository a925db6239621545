"""W8A8 on a GPU: one kernel quantises each token, one multiplies int8 matrices and scales the sums on the way out.

The int32 sums (M, N) never reach memory: they are multiplied by token scale and channel scale and the bias is added in
registers. Bytes moved: M K (e + 1) to quantise, M K + N K + e M N to multiply, for e bytes per element.
"""

import itertools
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.kernels.aot import Configuration
from zoo.kernels.dispatch import FUSED, on_its_gpu


@triton.jit
def quantize_kernel(x, codes, scales, K, BLOCK: tl.constexpr):
    """codes = round(x / r), r = max |x| / 127.5: one program for each token."""
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, K, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * K + at, mask=at < K, other=0.0).to(tl.float32)
        # bits of numbers that are not negative are ordered as they are, with NaN above infinity
        largest = tl.maximum(largest, tl.abs(value).to(tl.int32, bitcast=True))
    bits = tl.max(largest, 0)
    scale = tl.maximum(tl.div_rn(bits.to(tl.float32, bitcast=True), 127.5), 1.1920928955078125e-07)
    scale = tl.where(bits < 0x7F800000, scale, float("nan"))  # as infinity times no code is NaN
    tl.store(scales + row, scale)
    inverse = tl.div_rn(1.0, scale)
    for start in range(0, K, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * K + at, mask=at < K, other=0.0).to(tl.float32) * inverse
        # before the rounding, so that the product above is not fused with the sum below, which would round once
        value = tl.minimum(tl.maximum(value, -128.0), 127.0)
        # adding and subtracting 1.5 * 2^23 rounds half to even
        value = (value + 12582912.0) - 12582912.0
        tl.store(codes + row * K + at, value.to(tl.int8), mask=at < K)


@triton.jit
def product_kernel(
    codes, weight, scales, weight_scale, bias, y, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """y = (codes weight^T) * scales[:, None] * weight_scale[None] + bias: one program for each tile of y."""
    tiles_m, tiles_n = tl.cdiv(M, BM), tl.cdiv(N, BN)
    # GROUP rows of tiles are walked column by column, so that tiles running at the same time share rows and columns
    first = tl.program_id(0) // (GROUP * tiles_n) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    inside = tl.program_id(0) % (GROUP * tiles_n)
    m = (first + inside % height) * BM + tl.arange(0, BM)  # [BM]
    n = (inside // height) * BN + tl.arange(0, BN)  # [BN]
    k = tl.arange(0, BK)
    left = codes + m[:, None].to(tl.int64) * K + k[None, :]
    right = weight + n[None, :].to(tl.int64) * K + k[:, None]
    total = tl.zeros((BM, BN), tl.int32)
    for start in range(0, K, BK):
        a = tl.load(left + start, mask=(m[:, None] < M) & (start + k[None, :] < K), other=0)
        b = tl.load(right + start, mask=(n[None, :] < N) & (start + k[:, None] < K), other=0)
        total = tl.dot(a, b, total, out_dtype=tl.int32)
    token = tl.load(scales + m, mask=m < M, other=0.0)
    channel = tl.load(weight_scale + n, mask=n < N, other=0.0).to(tl.float32)
    out = total.to(tl.float32) * token[:, None] * channel[None, :]
    if BIAS:
        out += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    at = m[:, None].to(tl.int64) * N + n[None, :]
    tl.store(y + at, out.to(y.dtype.element_ty), mask=(m[:, None] < M) & (n[None, :] < N))


TILES = {
    # rows of x up to: BM, BN, BK, warps, stages
    16: (16, 64, 256, 4, 4),
    64: (64, 64, 128, 4, 4),
    1 << 62: (128, 128, 128, 8, 3),
}
AMD_TILES = {16: (16, 64, 128, 4, 2), 64: (64, 64, 128, 4, 2), 1 << 62: (128, 128, 64, 8, 2)}
GROUP = 8
BLOCKS = tuple(1 << power for power in range(4, 13))
"""Features that `quantize_kernel` reads at a time."""


@on_its_gpu
def launch(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, K), weight int8 (N, K), scale (N,), bias (N,) -> (M, N) in the dtype of x."""
    x, weight, scale = x.contiguous(), weight.contiguous(), scale.float().contiguous()
    (rows, inner), columns = x.shape, weight.shape[0]
    y = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    if not y.numel():
        return y
    codes = torch.empty(rows, inner, dtype=torch.int8, device=x.device)
    scales = torch.empty(rows, dtype=torch.float32, device=x.device)
    quantize_kernel[(rows,)](x, codes, scales, inner, BLOCK=_block(inner), num_warps=4, **FUSED)
    tiles = AMD_TILES if torch.version.hip else TILES
    bm, bn, bk, warps, stages = next(tile for limit, tile in tiles.items() if rows <= limit)
    if bias is not None and bias.dtype != x.dtype:
        bias = bias.float()
    product_kernel[(triton.cdiv(rows, bm) * triton.cdiv(columns, bn),)](
        codes, weight, scales, scale, bias.contiguous() if bias is not None else scale, y, rows, columns, inner,
        BM=bm, BN=bn, BK=bk, GROUP=GROUP, BIAS=bias is not None, num_warps=warps, num_stages=stages, **FUSED,
    )  # fmt: skip
    return y


def _block(inner: int) -> int:
    return next((block for block in BLOCKS if block >= inner), BLOCKS[-1])


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """Every configuration that `launch` can choose ("bf16" stands for fp16 too)."""
    for word in ("bf16", "fp32"):
        types = {"x": f"*{word}", "codes": "*i8", "scales": "*fp32", "K": "i32"}
        for block in BLOCKS:
            name = f"quantize {word} by {block}"
            yield Configuration(name, quantize_kernel, types, {"BLOCK": block}, ("K",), {"num_warps": 4})
        types = {"codes": "*i8", "weight": "*i8", "scales": "*fp32", "weight_scale": "*fp32"}
        types |= {"y": f"*{word}", "M": "i32", "N": "i32", "K": "i32"}
        biases = dict.fromkeys((word, "fp32", None))
        for (bm, bn, bk, warps, stages), bias in itertools.product((AMD_TILES if amd else TILES).values(), biases):
            constants = {"BM": bm, "BN": bn, "BK": bk, "GROUP": GROUP, "BIAS": bias is not None}
            options = {"num_warps": warps, "num_stages": stages}
            said = "" if bias is None else ", bias" if bias == word else ", float32 bias"
            name = f"product {word} {bm}x{bn}x{bk}{said}"
            own = types | {"bias": f"*{bias or word}"}
            free = ("bias",) if bias is None else ()
            yield Configuration(name, product_kernel, own, constants, ("N", "K"), options, matrix=True, free=free)
