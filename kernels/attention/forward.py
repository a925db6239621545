"""FlashAttention-2 forward (Dao, ICLR 2024, arXiv 2307.08691): softmax attention in one pass over the keys.

A program owns BM queries of one head, keeps their output in registers, and streams tiles of BN keys:

    t = q k^T scale log2(e) + bias log2(e)      scores in base 2
    m' = max(m, max_j t)                        running maximum of a row
    p = 2^(t - m'), a = 2^(m - m')              a corrects what was summed under the old maximum
    total = a total + sum_j p,  acc = a acc + p v
    at the end: o = acc / total, lse = (m + log2 total) / log2(e)

Two liberties of FlashAttention-4 (Zadouri et al., 2026), for machines whose exponentials and rescaling cost more than
their matrix products. LAZY: m follows the maximum only when it has risen by more than 8, so that p may reach 2^8; acc
and total share the old m, hence the result is the same. SOFT: a quarter of the exponentials are polynomials.

Under a unified maximum phi (FlashDecoding++, Hong et al., 2023, arXiv 2311.01282), about which the caller knows that
scores lie, p = 2^(t - phi), and no tile waits for the maximum of the one before. Where a sum shows that phi was too far
off, the tile of queries passes its keys again, with the running maximum.

The matrix of scores never leaves the chip. Where there are few queries the keys are divided among several programs;
each writes its own (o, lse), and `merge_kernel` joins them.
"""

import triton
import triton.language as tl

from zoo.kernels.attention.reference import HALF_SUMS, SAFE_SUMS
from zoo.kernels.attention.tiles import (
    COUNTS,
    LOG2E,
    add_products,
    clear_parts,
    divide_parts,
    key_range,
    load_parts,
    products_of,
    scale_parts,
    sequence,
    store_parts,
    tile_scores,
    zero_parts,
)
from zoo.kernels.dispatch import INTERPRETED

LAZY_COMPILES = tl.constexpr(INTERPRETED or tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 8))
"""Older compilers fail on LAZY's branch for sm_100 ("parent layout must have at least rank >= 2")."""

SAFE_LOW, SAFE_HIGH = (tl.constexpr(2.0**bound) for bound in SAFE_SUMS)
HALF_LOW, HALF_HIGH = (tl.constexpr(2.0**bound) for bound in HALF_SUMS)

# fmt: off


@triton.jit
def exp2_polynomial(x):
    """2^x for x <= 0 (beyond -126: 2^-126) to 7.5e-5, on the units that multiply and add.

    Adding 1.5 * 2^23 rounds to an integer, whose bits then go into the exponent; `floor` would use the slow unit again.
    """
    x = tl.maximum(x, -126.0)
    rounded = x + 12582912.0
    f = x - (rounded - 12582912.0)  # -0.5 .. 0.5
    value = ((0.05517167 * f + 0.24261114) * f + 0.69326097) * f + 0.99992806
    return (value.to(tl.int32, bitcast=True) + (rounded.to(tl.int32, bitcast=True) << 23)).to(tl.float32, bitcast=True)


@triton.jit
def exp2_mixed(x, BM: tl.constexpr, BN: tl.constexpr):
    """2^x, every fourth column by the polynomial."""
    even, odd = tl.split(tl.reshape(x, [BM, BN // 2, 2]))
    first, third = tl.split(tl.reshape(odd, [BM, BN // 4, 2]))
    odd = tl.reshape(tl.join(tl.exp2(first), exp2_polynomial(third)), [BM, BN // 2])
    return tl.reshape(tl.join(tl.exp2(even), odd), [BM, BN])


@triton.jit
def follow_maximum(
    acc, m, total, t, hides: tl.constexpr, EXTRA_V: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    LAZY: tl.constexpr, SOFT: tl.constexpr,
):  # fmt: skip
    """p [BM, BN], and (acc, m, total) corrected for the maximum that p goes by."""
    m_new = tl.maximum(m, tl.max(t, 1))
    lazy: tl.constexpr = LAZY and LAZY_COMPILES
    if lazy:
        rise = tl.where(m_new == float("-inf"), 0.0, m_new - m)
        if tl.max(rise, 0) > 8.0:
            correction = tl.exp2(m - tl.where(m_new == float("-inf"), 0.0, m_new))
            total = total * correction
            acc = scale_parts(acc, correction[:, None], EXTRA_V)
            m = m_new
        m_new = m
    base = m_new
    if hides:  # a row that has seen nothing yet: -inf - -inf is not a number
        base = tl.where(m_new == float("-inf"), 0.0, m_new)
    p = exp2_mixed(t - base[:, None], BM, BN) if SOFT and not hides else tl.exp2(t - base[:, None])
    if not lazy:
        correction = tl.exp2(m - base)
        total = total * correction
        acc = scale_parts(acc, correction[:, None], EXTRA_V)
    return p, acc, m_new, total


@triton.jit
def unless_out_of_range(acc, m, total, phi2, outside, keys, EXTRA_V: tl.constexpr, HALF: tl.constexpr):
    """What was summed under phi2, or nothing, and whether the rows must be summed again: those `outside` do not count.

    HALF: p is multiplied with v in float16; then the bound depends on the number of keys.
    """
    held = (total > keys * HALF_LOW) & (total < HALF_HIGH) if HALF else (total > SAFE_LOW) & (total < SAFE_HIGH)
    again = tl.min(tl.where(held | outside, 1, 0), 0) == 0
    total = tl.where(again, 0.0, total)
    m = tl.where(again, m, phi2)
    return clear_parts(acc, again, EXTRA_V), m, total, again


@triton.jit
def forward_step(
    acc, m, total, q_tile, keys_at, first, start, scale2, phi2, bias, blocks, bounds,
    D: tl.constexpr, DV: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr, EXTRA: tl.constexpr,
    EXTRA_V: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, LAZY: tl.constexpr,
    SOFT: tl.constexpr, masked: tl.constexpr,
):
    """Take the keys start .. start + BN into (acc, m, total), under the unified maximum phi2 unless it is None."""
    k, v, stride_k, stride_v = keys_at
    k_tile = load_parts(k, stride_k, start, bounds[2], BN, D, WIDTH, EXTRA, masked)  # [BN, WIDTH], [BN, EXTRA]
    products = products_of(q_tile, k_tile, EXTRA, PRECISION)  # [BM, BN]
    t = tile_scores(products, first, start, scale2, bias, blocks, bounds, BM, BN, False, masked)
    if phi2 is not None:
        p = tl.exp2(t - phi2)
    else:
        p, acc, m, total = follow_maximum(acc, m, total, t, masked or bias[0] is not None, EXTRA_V, BM, BN, LAZY, SOFT)
    total += tl.sum(p, 1)
    v_tile = load_parts(v, stride_v, start, bounds[2], BN, DV, WIDTH_V, EXTRA_V, masked)  # [BN, WIDTH_V], ..
    return add_products(acc, p, v_tile, EXTRA_V, PRECISION), m, total


@triton.jit
def over_keys(
    acc, m, total, q_tile, keys_at, first, visited, tile_indices, scale2, phi2, bias, blocks, bounds,
    D: tl.constexpr, DV: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr, EXTRA: tl.constexpr,
    EXTRA_V: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, LAZY: tl.constexpr,
    SOFT: tl.constexpr,
):
    """Take all keys visited = (low, partial, high) into (acc, m, total): from `partial` on they need a mask.

    With a block mask `visited` counts the tiles that `tile_indices` lists.
    """
    low, partial, high = visited
    for masked in tl.static_range(2):
        if masked == 1 or (bounds[3] is None and blocks[0] is None):
            begin, end = (partial, high) if masked == 1 else (low, partial)
            for at in range(begin, end, 1 if blocks[0] is not None else BN):
                start = tl.load(tile_indices + at) * BN if blocks[0] is not None else at
                acc, m, total = forward_step(
                    acc, m, total, q_tile, keys_at, first, start, scale2, phi2, bias, blocks, bounds,
                    D, DV, WIDTH, WIDTH_V, EXTRA, EXTRA_V, BM, BN, PRECISION, LAZY, SOFT, masked == 1)
    return acc, m, total


@triton.jit(do_not_specialize=COUNTS)
def forward_kernel(
    q, k, v, bias, o, lse, key_lengths, cu_queries, cu_keys, blocks, tile_counts, tile_indices,
    stride_qb, stride_qh, stride_qm, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_ob, stride_oh, stride_om, stride_os, stride_lb, stride_lh, stride_ls,
    stride_bias_b, stride_bias_h, stride_bias_m, stride_bias_n, stride_blocks_b, stride_blocks_h,
    stride_tiles_b, stride_tiles_h, H, GROUP, M_all, N_all, row_tiles, column_tiles, splits, chunk,
    scale2, phi2, left, right, block_rows, block_columns, blocks_per_row,
    D: tl.constexpr, DV: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr, EXTRA: tl.constexpr,
    EXTRA_V: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, LAZY: tl.constexpr,
    SOFT: tl.constexpr,
):
    """One program per (query tile, split, head, batch); the tiles of a head run together and share its keys in cache.

    tile_counts [.., row_tiles] and tile_indices [.., row_tiles, column_tiles] list the key tiles that hold a visible
    block (None without a block mask): hidden tiles cost nothing. chunk: keys of one of `splits`, a multiple of BN.
    """
    program = tl.program_id(0)
    tile = program % row_tiles
    split = program // row_tiles % splits
    h = (program // row_tiles // splits % H).to(tl.int64)
    b = (program // row_tiles // splits // H).to(tl.int64)
    first_query, M = sequence(cu_queries, b, M_all)
    first_key, N = sequence(cu_keys, b, N_all)
    if tile * BM >= M:
        return
    keys = N
    if key_lengths is not None:
        keys = tl.minimum(tl.load(key_lengths + b), N)
    bounds = (M, N, keys, left, right)
    first = tile * BM
    q += b * stride_qb + h * stride_qh + first_query * stride_qm
    k += b * stride_kb + h // GROUP * stride_kh + first_key * stride_kn
    v += b * stride_vb + h // GROUP * stride_vh + first_key * stride_vn
    if bias is not None:
        bias += b * stride_bias_b + h * stride_bias_h
    if blocks is not None:
        blocks += b * stride_blocks_b + h * stride_blocks_h
    bias_at = (bias, stride_bias_m, stride_bias_n)
    blocks_at = (blocks, block_rows, block_columns, blocks_per_row)
    keys_at = (k, v, stride_kn, stride_vn)

    q_tile = load_parts(q, stride_qm, first, M, BM, D, WIDTH, EXTRA, True)
    m = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = zero_parts(BM, WIDTH_V, EXTRA_V)
    low, partial, high = key_range(first, bounds, BM, BN)
    low, high = tl.maximum(low, split * chunk), tl.minimum(high, split * chunk + chunk)
    partial = tl.minimum(tl.maximum(partial, low), tl.maximum(high, low))
    if blocks is not None:
        at = b * stride_tiles_b + h * stride_tiles_h + tile
        low, partial, high = 0, 0, tl.load(tile_counts + at)
        tile_indices += at * column_tiles
    if phi2 is not None:
        acc, m, total = over_keys(
            acc, m, total, q_tile, keys_at, first, (low, partial, high), tile_indices, scale2, phi2, bias_at, blocks_at,
            bounds, D, DV, WIDTH, WIDTH_V, EXTRA, EXTRA_V, BM, BN, PRECISION, LAZY, SOFT)
        half: tl.constexpr = v.dtype.element_ty == tl.float16
        acc, m, total, again = unless_out_of_range(acc, m, total, phi2, first + tl.arange(0, BM) >= M, N, EXTRA_V, half)
        partial, high = tl.where(again, partial, low), tl.where(again, high, low)
    acc, m, total = over_keys(
        acc, m, total, q_tile, keys_at, first, (low, partial, high), tile_indices, scale2, None, bias_at, blocks_at,
        bounds, D, DV, WIDTH, WIDTH_V, EXTRA, EXTRA_V, BM, BN, PRECISION, LAZY, SOFT)

    seen = total > 0
    acc = divide_parts(acc, tl.where(seen, total, 1.0)[:, None], EXTRA_V)
    o += b * stride_ob + h * stride_oh + split * stride_os + first_query * stride_om
    store_parts(o, stride_om, first, M, acc, BM, DV, WIDTH_V, EXTRA_V)
    lse += b * stride_lb + h * stride_lh + split * stride_ls + first_query
    value = tl.where(seen, (m + tl.log2(tl.where(seen, total, 1.0))) / LOG2E, float("-inf"))
    rows = first + tl.arange(0, BM)
    tl.store(lse + rows, value, mask=rows < M)


@triton.jit(do_not_specialize=COUNTS)
def merge_kernel(
    o_parts, lse_parts, o, lse, stride_ob, stride_oh, stride_om, H, M,
    SPLITS: tl.constexpr, DV: tl.constexpr, WIDTH_V: tl.constexpr,
):
    """o = sum_p w_p o_p / sum_p w_p, w = e^lse, of contiguous parts [SPLITS, B, H, M, DV]; one program per query."""
    row = tl.program_id(0).to(tl.int64)  # (b H + h) M + i
    count = tl.num_programs(0)
    split = tl.arange(0, SPLITS)
    value = tl.load(lse_parts + split * count + row)
    top = tl.max(value, 0)
    base = tl.where(top == float("-inf"), 0.0, top)
    weight = tl.exp2((value - base) * LOG2E)
    whole = tl.sum(weight, 0)
    seen = whole > 0
    channel = tl.arange(0, WIDTH_V)
    at = o_parts + (split[:, None] * count + row) * DV + channel[None, :]
    part = tl.load(at, mask=channel[None, :] < DV, other=0.0)
    mean = tl.sum(part * weight[:, None], 0) / tl.where(seen, whole, 1.0)
    o += row // M // H * stride_ob + row // M % H * stride_oh + row % M * stride_om
    tl.store(o + channel, mean.to(o.dtype.element_ty), mask=channel < DV)
    tl.store(lse + row, tl.where(seen, base + tl.log2(tl.where(seen, whole, 1.0)) / LOG2E, float("-inf")))
