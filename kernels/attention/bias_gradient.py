"""Gradient of an additive attention bias of any broadcast shape, without atomics.

    dbias[b', h', i', j'] = sum of ds_ij over the images, heads, queries and keys that shared the entry

ds as in backward.py. One program owns a tile of dbias and walks over everything that was broadcast onto it. Where that
walk is long (one bias per head for thousands of windows), `parts` programs share it and the caller sums their results.
"""

import triton
import triton.language as tl

from zoo.kernels.attention.backward import load_statistics
from zoo.kernels.attention.tiles import COUNTS, load_parts, products_of, tile_scores

# fmt: off


@triton.jit(do_not_specialize=COUNTS)
def bias_gradient_kernel(
    q, k, v, bias, do, lse, delta, dbias, key_lengths, blocks,
    stride_qb, stride_qh, stride_qm, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_dob, stride_doh, stride_dom, stride_lb, stride_lh,
    stride_bias_b, stride_bias_h, stride_bias_m, stride_bias_n, stride_blocks_b, stride_blocks_h,
    B, H, GROUP, M, N, row_tiles, column_tiles, parts,
    scale2, left, right, block_rows, block_columns, blocks_per_row,
    ALL_B: tl.constexpr, ALL_H: tl.constexpr, ALL_M: tl.constexpr, ALL_N: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr, EXTRA: tl.constexpr,
    EXTRA_V: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):
    """dbias: contiguous [parts, B or 1, H or 1, M or 1, N or 1] float32; ALL_x says that axis x was broadcast.

    Grid: (tiles of dbias) x parts. A walk is numbered as ((b H' + h) row_tiles' + row tile) column_tiles' + column
    tile, where a primed count is 1 unless its axis was broadcast.
    """
    own_b, walk_b = (1, B) if ALL_B else (B, 1)
    own_h, walk_h = (1, H) if ALL_H else (H, 1)
    own_m, walk_m = (1, row_tiles) if ALL_M else (row_tiles, 1)
    own_n, walk_n = (1, column_tiles) if ALL_N else (column_tiles, 1)
    program = tl.program_id(0)
    tile_n = program % own_n
    tile_m = program // own_n % own_m
    its_h = program // own_n // own_m % own_h
    its_b = program // own_n // own_m // own_h % own_b
    part = program // own_n // own_m // own_h // own_b

    steps = walk_b * walk_h * walk_m * walk_n
    each = tl.cdiv(steps, parts)
    acc = tl.zeros([BM, BN], tl.float32)
    for step in range(part * each, tl.minimum(part * each + each, steps)):
        column_tile = tile_n + step % walk_n
        row_tile = tile_m + step // walk_n % walk_m
        h = (its_h + step // walk_n // walk_m % walk_h).to(tl.int64)
        b = (its_b + step // walk_n // walk_m // walk_h).to(tl.int64)
        row, column = row_tile * BM, column_tile * BN
        keys = N
        if key_lengths is not None:
            keys = tl.minimum(tl.load(key_lengths + b), N)
        blocks_at = (blocks, block_rows, block_columns, blocks_per_row)
        if blocks is not None:
            blocks_at = (blocks + b * stride_blocks_b + h * stride_blocks_h, block_rows, block_columns, blocks_per_row)
        bias_at = (bias + b * stride_bias_b + h * stride_bias_h, stride_bias_m, stride_bias_n)
        q_tile = load_parts(q + b * stride_qb + h * stride_qh, stride_qm, row, M, BM, D, WIDTH, EXTRA, True)
        k_head, v_head = k + b * stride_kb + h // GROUP * stride_kh, v + b * stride_vb + h // GROUP * stride_vh
        do_head = do + b * stride_dob + h * stride_doh
        k_tile = load_parts(k_head, stride_kn, column, keys, BN, D, WIDTH, EXTRA, True)
        v_tile = load_parts(v_head, stride_vn, column, keys, BN, DV, WIDTH_V, EXTRA_V, True)
        do_tile = load_parts(do_head, stride_dom, row, M, BM, DV, WIDTH_V, EXTRA_V, True)
        at = b * stride_lb + h * stride_lh
        lse_row, delta_row = load_statistics(lse + at, delta + at, row, M, BM)
        products = products_of(q_tile, k_tile, EXTRA, PRECISION)
        bounds = (M, N, keys, left, right)
        t = tile_scores(products, row, column, scale2, bias_at, blocks_at, bounds, BM, BN, False, True)
        dp = products_of(do_tile, v_tile, EXTRA_V, PRECISION)
        acc += tl.exp2(t - lse_row[:, None]) * (dp - delta_row[:, None])

    size_m, size_n = 1 if ALL_M else M, 1 if ALL_N else N
    dbias += ((part * own_b + its_b) * own_h + its_h).to(tl.int64) * size_m * size_n
    rows = tile_m * BM + tl.arange(0, BM)
    columns = tile_n * BN + tl.arange(0, BN)
    if ALL_M and ALL_N:
        tl.store(dbias, tl.sum(acc))
    elif ALL_M:
        tl.store(dbias + columns, tl.sum(acc, 0), mask=columns < N)
    elif ALL_N:
        tl.store(dbias + rows, tl.sum(acc, 1), mask=rows < M)
    else:
        at = dbias + rows[:, None].to(tl.int64) * N + columns[None, :]
        tl.store(at, acc, mask=(rows[:, None] < M) & (columns[None, :] < N))
