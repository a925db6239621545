"""What the forward and the backward kernels share: which tiles are visited, and the scores of one tile.

A tile is a block of BM queries (rows) times BN keys (columns). Scores are kept in base 2, t = s log2(e), because the
machine's exponential is 2^x. A position that its query does not see holds -inf.

Tuples that travel together:
    bounds = (M, N, keys, left, right)    queries, keys, keys that are not padding, window (None is open)
    bias   = (pointer or None, stride of a row, stride of a column)
    blocks = (pointer or None, rows per block, columns per block, blocks per row)
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_rows(start, stride, rows, limit, channels: tl.constexpr, width: tl.constexpr, bounded: tl.constexpr):
    """Rows of a matrix, [rows, width]; zero beyond `channels` and, where bounded, beyond row `limit`."""
    column = tl.arange(0, width)[None, :]
    at = start + rows[:, None].to(tl.int64) * stride + column
    if bounded:
        if channels == width:
            return tl.load(at, mask=rows[:, None] < limit, other=0.0)
        return tl.load(at, mask=(rows[:, None] < limit) & (column < channels), other=0.0)
    if channels == width:
        return tl.load(at)
    return tl.load(at, mask=column < channels, other=0.0)


@triton.jit
def store_rows(start, stride, rows, limit, values, channels: tl.constexpr, width: tl.constexpr):
    """Write values [rows, width] where a row is below `limit` and a channel below `channels`."""
    column = tl.arange(0, width)[None, :]
    at = start + rows[:, None].to(tl.int64) * stride + column
    tl.store(at, values.to(start.dtype.element_ty), mask=(rows[:, None] < limit) & (column < channels))


@triton.jit
def sequence(cu, index, length):
    """(first row, number of rows) of sequence `index`: from the bounds `cu` of packed sequences, or (0, length)."""
    if cu is None:
        return 0, length
    first = tl.load(cu + index)
    return first.to(tl.int64), tl.load(cu + index + 1) - first


@triton.jit
def tile_scores(products, rows, columns, scale2, bias, blocks, bounds, masked: tl.constexpr):
    """t = scale2 <q, k> + bias log2(e), -inf where hidden. Without `masked` every position is known to be visible.

    rows and columns broadcast to `products`: [BM, 1] and [1, BN], or [1, BM] and [BN, 1] for a transposed tile.
    """
    M, N, keys, left, right = bounds
    t = products * scale2
    if bias[0] is not None:
        at = bias[0] + rows.to(tl.int64) * bias[1] + columns.to(tl.int64) * bias[2]
        t += tl.load(at, mask=(rows < M) & (columns < N), other=0.0).to(tl.float32) * LOG2E
    if masked:
        visible = columns < keys
        offset = columns - (rows + N - M)
        if left is not None:
            visible = visible & (offset >= -left)
        if right is not None:
            visible = visible & (offset <= right)
        if blocks[0] is not None:
            at = blocks[0] + (rows // blocks[1]).to(tl.int64) * blocks[3] + columns // blocks[2]
            visible = visible & (tl.load(at, mask=(rows < M) & (columns < N), other=0) != 0)
        t = tl.where(visible, t, float("-inf"))
    return t


@triton.jit
def key_range(first_row, bounds, BM: tl.constexpr, BN: tl.constexpr):
    """Keys of a query tile: [low, high) are visited, of which [full, partial) are visible to all its rows.

    low, full and partial are multiples of BN unless they equal high. (`//` truncates, hence no negative numerators.)
    """
    M, N, keys, left, right = bounds
    first = first_row + N - M
    last = tl.minimum(first_row + BM, M) - 1 + N - M
    low, high, full, partial = 0, keys, 0, keys
    if left is not None:
        low = tl.maximum(first - left, 0) // BN * BN
        full = tl.cdiv(tl.maximum(last - left, 0), BN) * BN
    if right is not None:
        high = tl.minimum(keys, tl.maximum(last + right + 1, 0))
        partial = tl.minimum(keys, tl.maximum(first + right + 1, 0))
    return ordered(low, full, partial // BN * BN, high)


@triton.jit
def query_range(first_column, bounds, BM: tl.constexpr, BN: tl.constexpr):
    """Queries of a key tile, likewise: visited are [low, high), all of [full, partial) see all its keys."""
    M, N, keys, left, right = bounds
    first = first_column - (N - M)
    last = tl.minimum(first_column + BN, keys) - 1 - (N - M)
    low, high, full, partial = 0, M, 0, M
    if right is not None:
        low = tl.maximum(first - right, 0) // BM * BM
        full = tl.cdiv(tl.maximum(last - right, 0), BM) * BM
    if left is not None:
        high = tl.minimum(M, tl.maximum(last + left + 1, 0))
        partial = tl.minimum(M, tl.maximum(first + left + 1, 0))
    high = tl.where(first_column < keys, high, low)
    partial = tl.where(first_column + BN <= keys, partial, 0)
    return ordered(low, full, partial // BM * BM, high)


@triton.jit
def ordered(low, full, partial, high):
    """low <= full <= partial <= high, so that three loops in a row visit every tile once."""
    full = tl.minimum(tl.maximum(full, low), high)
    partial = tl.minimum(tl.maximum(partial, full), high)
    return low, full, partial, tl.maximum(high, partial)
