"""FlashAttention-2 backward (arXiv 2307.08691): the scores are computed again, nothing of size M x N was kept.

    p_ij = exp(s_ij - lse_i)
    delta_i = <do_i, o_i> - dlse_i                    (equals sum_j p_ij <do_i, v_j> when nothing flows into lse)
    ds_ij = p_ij (<do_i, v_j> - delta_i)
    dq_i = scale sum_j ds_ij k_j        query_gradient_kernel: a program owns queries and streams keys
    dk_j = scale sum_i ds_ij q_i        key_gradient_kernel: a program owns keys and streams the queries
    dv_j = sum_i p_ij do_i              of all heads that share them
    dbias = ds summed over the axes along which the bias was broadcast: bias_gradient_kernel

Every sum is owned by one program, so there are no atomics and two runs give the same bits; the price is that the scores
are computed once more per kernel. lse = -inf (a query that sees nothing) is read as +inf, which makes p = 0.
"""

import triton
import triton.language as tl

from zoo.kernels.attention.tiles import (
    COUNTS,
    LOG2E,
    add_products,
    key_range,
    load_parts,
    load_rows,
    products_of,
    query_range,
    scale_parts,
    sequence,
    store_parts,
    tile_scores,
    zero_parts,
)

# fmt: off


@triton.jit(do_not_specialize=COUNTS)
def delta_kernel(
    o, do, dlse, delta, cu_queries, stride_ob, stride_oh, stride_om, stride_dob, stride_doh, stride_dom,
    stride_lb, stride_lh, H, M_all, row_tiles, DV: tl.constexpr, WIDTH_V: tl.constexpr, BM: tl.constexpr,
):
    """delta_i = <do_i, o_i> - dlse_i, one program per (query tile, head, batch)."""
    program = tl.program_id(0)
    tile = program % row_tiles
    h = (program // row_tiles % H).to(tl.int64)
    b = (program // row_tiles // H).to(tl.int64)
    first, M = sequence(cu_queries, b, M_all)
    o += b * stride_ob + h * stride_oh + first * stride_om
    o_tile = load_rows(o, stride_om, tile * BM, M, BM, DV, WIDTH_V, True)
    do += b * stride_dob + h * stride_doh + first * stride_dom
    do_tile = load_rows(do, stride_dom, tile * BM, M, BM, DV, WIDTH_V, True)
    rows = tile * BM + tl.arange(0, BM)
    at = b * stride_lb + h * stride_lh + first + rows
    value = tl.sum(o_tile.to(tl.float32) * do_tile.to(tl.float32), 1)
    tl.store(delta + at, value - tl.load(dlse + at, mask=rows < M, other=0.0), mask=rows < M)


@triton.jit
def load_statistics(lse, delta, first, M, COUNT: tl.constexpr):
    """lse (base 2; +inf where the row is empty or absent, so that p = 0) and delta of COUNT rows."""
    rows = first + tl.arange(0, COUNT)
    value = tl.load(lse + rows, mask=rows < M, other=float("inf"))
    value = tl.where(value == float("-inf"), float("inf"), value) * LOG2E
    return value, tl.load(delta + rows, mask=rows < M, other=0.0)


@triton.jit
def query_gradient_step(
    dq, q_tile, do_tile, lse_row, delta_row, k, v, stride_k, stride_v, first, start, scale2, bias, blocks, bounds,
    D: tl.constexpr, DV: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr, EXTRA: tl.constexpr,
    EXTRA_V: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, masked: tl.constexpr,
):
    """dq += ds k over the keys start .. start + BN."""
    k_tile = load_parts(k, stride_k, start, bounds[2], BN, D, WIDTH, EXTRA, masked)  # [BN, WIDTH], [BN, EXTRA]
    v_tile = load_parts(v, stride_v, start, bounds[2], BN, DV, WIDTH_V, EXTRA_V, masked)  # [BN, WIDTH_V], ..
    products = products_of(q_tile, k_tile, EXTRA, PRECISION)  # [BM, BN]
    t = tile_scores(products, first, start, scale2, bias, blocks, bounds, BM, BN, False, masked)
    p = tl.exp2(t - lse_row[:, None])
    dp = products_of(do_tile, v_tile, EXTRA_V, PRECISION)
    ds = p * (dp - delta_row[:, None])
    return add_products(dq, ds, k_tile, EXTRA, PRECISION)


@triton.jit(do_not_specialize=COUNTS)
def query_gradient_kernel(
    q, k, v, bias, do, lse, delta, dq, key_lengths, cu_queries, cu_keys, blocks, tile_counts, tile_indices,
    stride_qb, stride_qh, stride_qm, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_dob, stride_doh, stride_dom, stride_dqb, stride_dqh, stride_dqm, stride_lb, stride_lh,
    stride_bias_b, stride_bias_h, stride_bias_m, stride_bias_n, stride_blocks_b, stride_blocks_h,
    stride_tiles_b, stride_tiles_h, H, GROUP, M_all, N_all, row_tiles, column_tiles,
    scale, scale2, left, right, block_rows, block_columns, blocks_per_row,
    D: tl.constexpr, DV: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr, EXTRA: tl.constexpr,
    EXTRA_V: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):
    """One program per (query tile, head, batch)."""
    program = tl.program_id(0)
    tile = program % row_tiles
    h = (program // row_tiles % H).to(tl.int64)
    b = (program // row_tiles // H).to(tl.int64)
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
    do += b * stride_dob + h * stride_doh + first_query * stride_dom
    if bias is not None:
        bias += b * stride_bias_b + h * stride_bias_h
    if blocks is not None:
        blocks += b * stride_blocks_b + h * stride_blocks_h
    bias_at = (bias, stride_bias_m, stride_bias_n)
    blocks_at = (blocks, block_rows, block_columns, blocks_per_row)

    q_tile = load_parts(q, stride_qm, first, M, BM, D, WIDTH, EXTRA, True)
    do_tile = load_parts(do, stride_dom, first, M, BM, DV, WIDTH_V, EXTRA_V, True)
    at = b * stride_lb + h * stride_lh + first_query
    lse_row, delta_row = load_statistics(lse + at, delta + at, first, M, BM)
    acc = zero_parts(BM, WIDTH, EXTRA)
    if blocks is not None:
        at = b * stride_tiles_b + h * stride_tiles_h + tile
        for index in range(tl.load(tile_counts + at)):
            start = tl.load(tile_indices + at * column_tiles + index) * BN
            acc = query_gradient_step(
                acc, q_tile, do_tile, lse_row, delta_row, k, v, stride_kn, stride_vn, first, start, scale2,
                bias_at, blocks_at, bounds, D, DV, WIDTH, WIDTH_V, EXTRA, EXTRA_V, BM, BN, PRECISION, True)
    else:
        low, partial, high = key_range(first, bounds, BM, BN)
        for masked in tl.static_range(2):
            if masked == 1 or left is None:
                begin, end = (partial, high) if masked == 1 else (low, partial)
                for start in range(begin, end, BN):
                    acc = query_gradient_step(
                        acc, q_tile, do_tile, lse_row, delta_row, k, v, stride_kn, stride_vn, first, start, scale2,
                        bias_at, blocks_at, bounds, D, DV, WIDTH, WIDTH_V, EXTRA, EXTRA_V, BM, BN, PRECISION,
                        masked == 1)
    dq += b * stride_dqb + h * stride_dqh + first_query * stride_dqm
    store_parts(dq, stride_dqm, first, M, scale_parts(acc, scale, EXTRA), BM, D, WIDTH, EXTRA)


@triton.jit
def key_gradient_step(
    dk, dv, k_tile, v_tile, q, do, lse, delta, stride_q, stride_do, first, start, scale2, bias, blocks, bounds,
    D: tl.constexpr, DV: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr, EXTRA: tl.constexpr,
    EXTRA_V: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr, masked: tl.constexpr,
):
    """dk += ds^T q, dv += p^T do over the queries start .. start + BM; tiles are transposed, [BN, BM]."""
    q_tile = load_parts(q, stride_q, start, bounds[0], BM, D, WIDTH, EXTRA, True)  # [BM, WIDTH], [BM, EXTRA]
    do_tile = load_parts(do, stride_do, start, bounds[0], BM, DV, WIDTH_V, EXTRA_V, True)  # [BM, WIDTH_V], ..
    lse_row, delta_row = load_statistics(lse, delta, start, bounds[0], BM)
    products = products_of(k_tile, q_tile, EXTRA, PRECISION)  # [BN, BM]
    t = tile_scores(products, start, first, scale2, bias, blocks, bounds, BM, BN, True, masked)
    p = tl.exp2(t - lse_row[None, :])
    dv = add_products(dv, p, do_tile, EXTRA_V, PRECISION)
    dp = products_of(v_tile, do_tile, EXTRA_V, PRECISION)
    ds = p * (dp - delta_row[None, :])
    return add_products(dk, ds, q_tile, EXTRA, PRECISION), dv


@triton.jit(do_not_specialize=COUNTS)
def key_gradient_kernel(
    q, k, v, bias, do, lse, delta, dk, dv, key_lengths, cu_queries, cu_keys, blocks, tile_counts, tile_indices,
    stride_qb, stride_qh, stride_qm, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_dob, stride_doh, stride_dom, stride_dkb, stride_dkh, stride_dkn, stride_dvb, stride_dvh, stride_dvn,
    stride_lb, stride_lh, stride_bias_b, stride_bias_h, stride_bias_m, stride_bias_n, stride_blocks_b, stride_blocks_h,
    stride_tiles_b, stride_tiles_h, KEY_HEADS, GROUP, M_all, N_all, row_tiles, column_tiles,
    scale, scale2, left, right, block_rows, block_columns, blocks_per_row,
    D: tl.constexpr, DV: tl.constexpr, WIDTH: tl.constexpr, WIDTH_V: tl.constexpr, EXTRA: tl.constexpr,
    EXTRA_V: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):
    """One program per (key tile, key head, batch); tile_counts and tile_indices list query tiles of a key tile here.

    Queries and keys beyond the end need no mask: the former have p = 0, the latter own rows of dk that are not stored.
    """
    hides: tl.constexpr = left is not None or right is not None or blocks is not None or key_lengths is not None
    program = tl.program_id(0)
    tile = program % column_tiles
    key_head = (program // column_tiles % KEY_HEADS).to(tl.int64)
    b = (program // column_tiles // KEY_HEADS).to(tl.int64)
    first_query, M = sequence(cu_queries, b, M_all)
    first_key, N = sequence(cu_keys, b, N_all)
    if tile * BN >= N:
        return
    keys = N
    if key_lengths is not None:
        keys = tl.minimum(tl.load(key_lengths + b), N)
    bounds = (M, N, keys, left, right)
    first = tile * BN
    k += b * stride_kb + key_head * stride_kh + first_key * stride_kn
    v += b * stride_vb + key_head * stride_vh + first_key * stride_vn
    k_tile = load_parts(k, stride_kn, first, keys, BN, D, WIDTH, EXTRA, True)
    v_tile = load_parts(v, stride_vn, first, keys, BN, DV, WIDTH_V, EXTRA_V, True)
    dk_acc = zero_parts(BN, WIDTH, EXTRA)
    dv_acc = zero_parts(BN, WIDTH_V, EXTRA_V)
    low, high = query_range(first, bounds, BM, BN)
    for member in range(GROUP):
        h = key_head * GROUP + member
        q_head = q + b * stride_qb + h * stride_qh + first_query * stride_qm
        do_head = do + b * stride_dob + h * stride_doh + first_query * stride_dom
        at = b * stride_lb + h * stride_lh + first_query
        bias_head, blocks_head = bias, blocks
        if bias is not None:
            bias_head = bias + b * stride_bias_b + h * stride_bias_h
        if blocks is not None:
            blocks_head = blocks + b * stride_blocks_b + h * stride_blocks_h
        bias_at = (bias_head, stride_bias_m, stride_bias_n)
        blocks_at = (blocks_head, block_rows, block_columns, blocks_per_row)
        if blocks is not None:
            list_at = b * stride_tiles_b + h * stride_tiles_h + tile
            for index in range(tl.load(tile_counts + list_at)):
                start = tl.load(tile_indices + list_at * row_tiles + index) * BM
                dk_acc, dv_acc = key_gradient_step(
                    dk_acc, dv_acc, k_tile, v_tile, q_head, do_head, lse + at, delta + at, stride_qm, stride_dom,
                    first, start, scale2, bias_at, blocks_at, bounds, D, DV, WIDTH, WIDTH_V, EXTRA, EXTRA_V, BM, BN,
                    PRECISION, hides)
        else:
            for start in range(low, high, BM):
                dk_acc, dv_acc = key_gradient_step(
                    dk_acc, dv_acc, k_tile, v_tile, q_head, do_head, lse + at, delta + at, stride_qm, stride_dom,
                    first, start, scale2, bias_at, blocks_at, bounds, D, DV, WIDTH, WIDTH_V, EXTRA, EXTRA_V, BM, BN,
                    PRECISION, hides)
    dk += b * stride_dkb + key_head * stride_dkh + first_key * stride_dkn
    dv += b * stride_dvb + key_head * stride_dvh + first_key * stride_dvn
    store_parts(dk, stride_dkn, first, N, scale_parts(dk_acc, scale, EXTRA), BN, D, WIDTH, EXTRA)
    store_parts(dv, stride_dvn, first, N, dv_acc, BN, DV, WIDTH_V, EXTRA_V)
