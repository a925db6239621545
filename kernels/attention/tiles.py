"""What the forward and the backward kernels share: which tiles are visited, and the scores of one tile.

A tile is a block of BM queries (rows) times BN keys (columns). Scores are kept in base 2, t = s log2(e), because the
machine's exponential is 2^x. A position that its query does not see holds -inf.

A head of 80 channels is two tiles, of 64 and 16 columns, rather than one of 128: `parts` are a tuple of one or two.

Tuples that travel together:
    bounds = (M, N, keys, left, right)    queries, keys, keys that are not padding, window (None is open)
    bias   = (pointer or None, stride of a row, stride of a column)
    blocks = (pointer or None, rows per block, columns per block, blocks per row)
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)

COUNTS = (
    "B", "H", "GROUP", "KEY_HEADS", "M", "N", "M_all", "N_all", "row_tiles", "column_tiles", "splits", "chunk", "parts",
    "left", "right", "block_rows", "block_columns", "blocks_per_row",
)  # fmt: skip
"""What changes from batch to batch and makes no kernel faster by being known: nothing is compiled anew for it."""


@triton.jit
def load_rows(
    matrix,
    stride,
    first,
    limit,
    COUNT: tl.constexpr,
    channels: tl.constexpr,
    width: tl.constexpr,
    bounded: tl.constexpr,
):
    """Rows first .. first + COUNT of a matrix, [COUNT, width]: zero beyond `channels` and, if bounded, row `limit`.

    Only the tile's first row needs 64-bit arithmetic; inside the tile 32 bits save registers.
    """
    row, column = tl.arange(0, COUNT)[:, None], tl.arange(0, width)[None, :]
    at = matrix + tl.cast(first, tl.int64) * stride + (row * stride + column)
    if bounded:
        if channels == width:
            return tl.load(at, mask=row < limit - first, other=0.0)
        else:
            return tl.load(at, mask=(row < limit - first) & (column < channels), other=0.0)
    elif channels == width:
        return tl.load(at)
    else:
        return tl.load(at, mask=column < channels, other=0.0)


@triton.jit
def load_parts(
    matrix, stride, first, limit, COUNT: tl.constexpr, channels: tl.constexpr, WIDTH: tl.constexpr,
    EXTRA: tl.constexpr, bounded: tl.constexpr,
):  # fmt: skip
    """`load_rows` of all channels, as a tuple of one tile of WIDTH columns and, where EXTRA > 0, one more of EXTRA."""
    if EXTRA == 0:
        return (load_rows(matrix, stride, first, limit, COUNT, channels, WIDTH, bounded),)
    else:
        head = load_rows(matrix, stride, first, limit, COUNT, WIDTH, WIDTH, bounded)
        return (head, load_rows(matrix + WIDTH, stride, first, limit, COUNT, channels - WIDTH, EXTRA, bounded))


@triton.jit
def zero_parts(COUNT: tl.constexpr, WIDTH: tl.constexpr, EXTRA: tl.constexpr):
    if EXTRA == 0:
        return (tl.zeros([COUNT, WIDTH], tl.float32),)
    else:
        return (tl.zeros([COUNT, WIDTH], tl.float32), tl.zeros([COUNT, EXTRA], tl.float32))


@triton.jit
def products_of(a, b, EXTRA: tl.constexpr, PRECISION: tl.constexpr):
    """a b^T over all channels of two matrices in parts: [rows of a, rows of b]."""
    found = tl.dot(a[0], tl.trans(b[0]), input_precision=PRECISION)
    if EXTRA > 0:
        found = tl.dot(a[1], tl.trans(b[1]), found, input_precision=PRECISION)
    return found


@triton.jit
def add_products(sums, weights, b, EXTRA: tl.constexpr, PRECISION: tl.constexpr):
    """sums + weights b, part by part."""
    weights = weights.to(b[0].dtype)
    head = tl.dot(weights, b[0], sums[0], input_precision=PRECISION)
    if EXTRA == 0:
        return (head,)
    else:
        return (head, tl.dot(weights, b[1], sums[1], input_precision=PRECISION))


@triton.jit
def scale_parts(parts, factor, EXTRA: tl.constexpr):
    if EXTRA == 0:
        return (parts[0] * factor,)
    else:
        return (parts[0] * factor, parts[1] * factor)


@triton.jit
def clear_parts(parts, condition, EXTRA: tl.constexpr):
    """Zeros where `condition`, else what was there."""
    if EXTRA == 0:
        return (tl.where(condition, 0.0, parts[0]),)
    else:
        return (tl.where(condition, 0.0, parts[0]), tl.where(condition, 0.0, parts[1]))


@triton.jit
def divide_parts(parts, divisor, EXTRA: tl.constexpr):
    if EXTRA == 0:
        return (parts[0] / divisor,)
    else:
        return (parts[0] / divisor, parts[1] / divisor)


@triton.jit
def store_parts(
    matrix, stride, first, limit, parts, COUNT: tl.constexpr, channels: tl.constexpr, WIDTH: tl.constexpr,
    EXTRA: tl.constexpr,
):  # fmt: skip
    if EXTRA == 0:
        store_rows(matrix, stride, first, limit, parts[0], COUNT, channels, WIDTH)
    else:
        store_rows(matrix, stride, first, limit, parts[0], COUNT, WIDTH, WIDTH)
        store_rows(matrix + WIDTH, stride, first, limit, parts[1], COUNT, channels - WIDTH, EXTRA)


@triton.jit
def store_rows(matrix, stride, first, limit, values, COUNT: tl.constexpr, channels: tl.constexpr, width: tl.constexpr):
    """Write values [COUNT, width] to rows first .. first + COUNT that lie below `limit`."""
    row, column = tl.arange(0, COUNT)[:, None], tl.arange(0, width)[None, :]
    at = matrix + tl.cast(first, tl.int64) * stride + (row * stride + column)
    tl.store(at, values.to(matrix.dtype.element_ty), mask=(row < limit - first) & (column < channels))


@triton.jit
def sequence(cu, index, length):
    """(first row, number of rows) of sequence `index`: from the bounds `cu` of packed sequences, or (0, length)."""
    if cu is None:
        return 0, length
    else:
        first = tl.load(cu + index)
        return first.to(tl.int64), tl.load(cu + index + 1) - first


@triton.jit
def tile_scores(
    products, first_row, first_column, scale2, bias, blocks, bounds,
    BM: tl.constexpr, BN: tl.constexpr, transposed: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """t = scale2 <q, k> + bias log2(e), -inf where hidden, for `products` [BM, BN], or [BN, BM] if transposed.

    Without `masked` every position is known to be visible.
    """
    M, N, keys, left, right = bounds
    if transposed:
        row, column = tl.arange(0, BM)[None, :], tl.arange(0, BN)[:, None]
    else:
        row, column = tl.arange(0, BM)[:, None], tl.arange(0, BN)[None, :]
    t = products * scale2
    if bias[0] is not None:
        at = bias[0] + tl.cast(first_row, tl.int64) * bias[1] + tl.cast(first_column, tl.int64) * bias[2]
        inside = (row < M - first_row) & (column < N - first_column)
        t += tl.load(at + (row * bias[1] + column * bias[2]), mask=inside, other=0.0).to(tl.float32) * LOG2E
    if masked:
        visible = column < keys - first_column
        offset = column - row + (first_column - first_row - N + M)
        if left is not None:
            visible = visible & (offset >= -left)
        if right is not None:
            visible = visible & (offset <= right)
        if blocks[0] is not None:
            inside = (row < M - first_row) & (column < N - first_column)
            at = blocks[0] + (first_row + row) // blocks[1] * blocks[3] + (first_column + column) // blocks[2]
            visible = visible & (tl.load(at, mask=inside, other=0) != 0)
        t = tl.where(visible, t, float("-inf"))
    return t


@triton.jit
def key_range(first_row, bounds, BM: tl.constexpr, BN: tl.constexpr):
    """Keys of a query tile: [low, partial) are visible to all its rows, [partial, high) need a mask.

    low and partial are multiples of BN. A window that is open to the left is the common case and worth a loop without
    masks; one that is not visits few tiles, all with a mask. (`//` truncates, hence no negative numerators.)
    """
    M, N, keys, left, right = bounds
    first = first_row + N - M
    last = tl.minimum(first_row + BM, M) - 1 + N - M
    low, partial, high = 0, keys, keys
    if right is not None:
        high = tl.minimum(keys, tl.maximum(last + right + 1, 0))
        partial = tl.minimum(keys, tl.maximum(first + right + 1, 0))
    if left is not None:
        low = tl.maximum(first - left, 0) // BN * BN
        partial = low
    return low, partial // BN * BN, high


@triton.jit
def query_range(first_column, bounds, BM: tl.constexpr, BN: tl.constexpr):
    """The queries [low, high) that see a key of a tile."""
    M, N, keys, left, right = bounds
    first = first_column - (N - M)
    last = tl.minimum(first_column + BN, keys) - 1 - (N - M)
    low, high = 0, M
    if right is not None:
        low = tl.maximum(first - right, 0) // BM * BM
    if left is not None:
        high = tl.minimum(M, tl.maximum(last + left + 1, 0))
    return low, tl.where(first_column < keys, high, low)
