"""Linear attention on a GPU, forward and backward: SLAB's (q and k are the features) and BASED's (Taylor polynomial).

    w_ij = s or 1 + s + s^2 / 2, s = scale <q_i, k_j>;  y_i = sum_j w_ij v_j / z_i, z_i = sum_j w_ij + eps

A program owns a tile of queries. It meets far keys through a state, sum_j phi(k_j) [v_j, 1], and near ones through
tiles of w in registers; neither phi nor w reaches memory. Few tokens: all keys are near. No mask: all are far. Causal:
keys of earlier chunks are far. The rows of a state, each V + 1 wide, are x_a x_c at a C + c, x_c at C C + c and 1 at
C C + C for the polynomial, x_c at c for SLAB's; a program of the state kernel owns the C rows with one a.

Backward, with g_i = dy_i / z_i and e_i = -<dy_i, y_i> / z_i: dw_ij = <g_i, v_j> + e_i, so a state of queries,
sum_i phi(q_i) [g_i, e_i], is to a key what the state of keys is to a query. No atomics.
"""

import triton
import triton.language as tl

COUNTS = ("M", "N", "CHUNK", "CHUNKS")
"""What changes from batch to batch: no kernel is compiled anew for it."""


@triton.jit
def _rows(x, n, end, C, RELU: tl.constexpr, BC: tl.constexpr):
    """x[n, :C], zero from row `end` on, negative entries set to 0 for RELU."""
    c = tl.arange(0, BC)
    value = tl.load(x + n[:, None] * C + c[None, :], mask=(n[:, None] < end) & (c[None, :] < C), other=0.0)
    if RELU:
        value = tl.maximum(value, 0.0)
    return value


@triton.jit
def _state_rows(state, first, C, V, W, BC: tl.constexpr, BV: tl.constexpr):
    """The C rows of a state from `first` on: [BC, BV], and their last column [BC]."""
    c = tl.arange(0, BC)
    v = tl.arange(0, BV)
    at = state + (first + c) * W
    rows = tl.load(at[:, None] + v[None, :], mask=(c[:, None] < C) & (v[None, :] < V), other=0.0)
    return rows, tl.load(at + V, mask=c < C, other=0.0)


@triton.jit
def _read(
    state, column, x, n, end, scale, C, V, W,
    TAYLOR: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """<phi(x_n), state> for rows x [BM, BC] already scaled; `column` points at the unscaled rows in memory."""
    v = tl.arange(0, BV)
    total = tl.zeros((BM, BV), tl.float32)
    last = tl.zeros((BM,), tl.float32)
    first = 0
    if TAYLOR:
        zero = state + (C * C + C) * W
        total += tl.load(zero + v, mask=v < V, other=0.0)[None, :]
        last += tl.load(zero + V)
        for a in range(0, C):
            factor = 0.5 * scale * tl.load(column + n * C + a, mask=n < end, other=0.0).to(tl.float32)
            square = x * factor[:, None]
            rows, ones = _state_rows(state, a * C, C, V, W, BC, BV)
            total = tl.dot(square, rows, total, input_precision=PRECISION)
            last += tl.sum(square * ones[None, :], 1)
        first = C * C
    rows, ones = _state_rows(state, first, C, V, W, BC, BV)
    total = tl.dot(x, rows, total, input_precision=PRECISION)
    return total, last + tl.sum(x * ones[None, :], 1)


@triton.jit
def _slope(
    state, column, g, e, n, end, scale, C, V, W,
    TAYLOR: tl.constexpr, BC: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The derivative of <phi(x_n), state [g_n, e_n]> in the scaled x: g [BM, BV], e [BM] -> [BM, BC].

    Rows x_a x_c and x_c x_a of a state are equal, so half the square's derivative in x_c is sum_a x_a (row a c).
    """
    first = 0
    if TAYLOR:
        first = C * C
    rows, ones = _state_rows(state, first, C, V, W, BC, BV)
    slope = e[:, None] * ones[None, :]
    slope = tl.dot(g, tl.trans(rows), slope, input_precision=PRECISION)
    if TAYLOR:
        for a in range(0, C):
            factor = scale * tl.load(column + n * C + a, mask=n < end, other=0.0).to(tl.float32)
            rows, ones = _state_rows(state, a * C, C, V, W, BC, BV)
            slope = tl.dot(g * factor[:, None], tl.trans(rows), slope, input_precision=PRECISION)
            slope += (e * factor)[:, None] * ones[None, :]
    return slope


@triton.jit(do_not_specialize=COUNTS)
def state_kernel(
    x, u, t, e, state, N, C, V, F, W, CHUNK, scale,
    TAYLOR: tl.constexpr, RELU: tl.constexpr, WEIGHTED: tl.constexpr,
    BN: tl.constexpr, BC: tl.constexpr, BV: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """state[g, chunk] = sum of phi(scale x_n) [t_n u_n, e_n] over the chunk's n; t = e = 1 unless WEIGHTED."""
    blocks = C + 1 if TAYLOR else 1
    a = tl.program_id(0) % blocks
    head = (tl.program_id(0) // blocks).to(tl.int64)
    chunk = tl.program_id(1)
    x += head * N * C
    u += head * N * V
    c = tl.arange(0, BC)  # [BC]
    v = tl.arange(0, BV)  # [BV]
    begin = chunk * CHUNK
    end = tl.minimum(begin + CHUNK, N)
    total, last = tl.zeros((BC, BV), tl.float32), tl.zeros((BC,), tl.float32)
    zero, count = tl.zeros((BV,), tl.float32), tl.zeros((BN,), tl.float32)
    for first in range(begin, end, BN):
        n = first + tl.arange(0, BN)  # [BN]
        features = _rows(x, n, end, C, RELU, BC).to(tl.float32) * scale
        value = _rows(u, n, end, V, False, BV).to(tl.float32)
        if WEIGHTED:
            value *= tl.load(t + head * N + n, mask=n < end, other=0.0)[:, None]
            extra = tl.load(e + head * N + n, mask=n < end, other=0.0)
        else:
            extra = tl.where(n < end, 1.0, 0.0)
        if TAYLOR:
            factor = tl.load(x + n * C + tl.minimum(a, C - 1), mask=n < end, other=0.0).to(tl.float32)
            features *= tl.where(a < C, scale * factor, 1.0)[:, None]
            zero += tl.sum(value, 0)
            count += extra
        total = tl.dot(tl.trans(features), value, total, input_precision=PRECISION)
        last += tl.sum(features * extra[:, None], 0)
    state += (head * tl.num_programs(1) + chunk) * F * W
    at = state + (a * C + c) * W
    tl.store(at[:, None] + v[None, :], total, mask=(c[:, None] < C) & (v[None, :] < V))
    tl.store(at + V, last, mask=c < C)
    if TAYLOR:  # noqa: SIM102
        if a == C:
            bottom = state + (C * C + C) * W
            tl.store(bottom + v, zero, mask=v < V)
            tl.store(bottom + V, tl.sum(count))


@triton.jit(do_not_specialize=COUNTS)
def forward_kernel(
    q, k, v, state, y, z, M, N, C, V, F, W, CHUNK, CHUNKS, scale, eps,
    TAYLOR: tl.constexpr, RELU: tl.constexpr, CAUSAL: tl.constexpr, NEAR: tl.constexpr, FAR: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, STATE_PRECISION: tl.constexpr,
):  # fmt: skip
    """y and z of BM queries: NEAR through tiles of w, FAR through the state before the chunk (or of all keys)."""
    tiles = tl.cdiv(M, BM)
    head = (tl.program_id(0) // tiles).to(tl.int64)
    q += head * M * C
    k += head * N * C
    v += head * N * V
    start = tl.program_id(0) % tiles * BM
    m = start + tl.arange(0, BM)  # [BM]
    chunk = start // CHUNK if CAUSAL else 0
    queries = _rows(q, m, M, C, RELU, BC)
    total, last = tl.zeros((BM, BV), tl.float32), tl.zeros((BM,), tl.float32)
    if FAR:
        at = state + (head * CHUNKS + chunk) * F * W
        wide = queries.to(tl.float32) * scale
        total, last = _read(at, q, wide, m, M, scale, C, V, W, TAYLOR, BM, BC, BV, STATE_PRECISION)
    if NEAR:
        begin, end = 0, N
        if CAUSAL:
            begin, end = chunk * CHUNK, tl.minimum(N, start + BM)
        for first in range(begin, end, BN):
            n = first + tl.arange(0, BN)  # [BN]
            keys, values = _rows(k, n, N, C, RELU, BC), _rows(v, n, N, V, False, BV)
            w = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
            if TAYLOR:
                w = 1.0 + w + 0.5 * w * w
            seen = n[None, :] < N
            if CAUSAL:
                seen = seen & (n[None, :] <= m[:, None])
            w = tl.where(seen, w, 0.0)
            total = tl.dot(w.to(v.dtype.element_ty), values, total, input_precision=PRECISION)
            last += tl.sum(w, 1)
    last += eps
    c = tl.arange(0, BV)
    inside = (m[:, None] < M) & (c[None, :] < V)
    at = y + head * M * V + m[:, None] * V + c[None, :]
    tl.store(at, (total / last[:, None]).to(y.dtype.element_ty), mask=inside)
    tl.store(z + head * M + m, last, mask=m < M)


@triton.jit
def _near_gradients(
    queries, keys, values, dy, t, e, seen, scale, TAYLOR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """w_ij / z_i and ds_ij of a tile of queries and keys."""
    s = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
    ds = tl.dot(dy, tl.trans(values), input_precision=PRECISION) * t[:, None] + e[:, None]
    w = s
    if TAYLOR:
        w = 1.0 + s + 0.5 * s * s
        ds *= 1.0 + s
    return tl.where(seen, w * t[:, None], 0.0), tl.where(seen, ds, 0.0)


@triton.jit(do_not_specialize=COUNTS)
def queries_kernel(
    q, k, v, dy, t, e, state, dq, M, N, C, V, F, W, CHUNK, CHUNKS, scale,
    TAYLOR: tl.constexpr, RELU: tl.constexpr, CAUSAL: tl.constexpr, NEAR: tl.constexpr, FAR: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, STATE_PRECISION: tl.constexpr,
):  # fmt: skip
    """dq of BM queries, from the same keys and state as the forward."""
    tiles = tl.cdiv(M, BM)
    head = (tl.program_id(0) // tiles).to(tl.int64)
    q += head * M * C
    k += head * N * C
    v += head * N * V
    start = tl.program_id(0) % tiles * BM
    m = start + tl.arange(0, BM)  # [BM]
    chunk = start // CHUNK if CAUSAL else 0
    queries, grad = _rows(q, m, M, C, RELU, BC), _rows(dy + head * M * V, m, M, V, False, BV)
    factor = tl.load(t + head * M + m, mask=m < M, other=0.0)
    extra = tl.load(e + head * M + m, mask=m < M, other=0.0)
    slope = tl.zeros((BM, BC), tl.float32)
    if FAR:
        at = state + (head * CHUNKS + chunk) * F * W
        g = grad.to(tl.float32) * factor[:, None]
        slope = _slope(at, q, g, extra, m, M, scale, C, V, W, TAYLOR, BC, BV, STATE_PRECISION)
    if NEAR:
        begin, end = 0, N
        if CAUSAL:
            begin, end = chunk * CHUNK, tl.minimum(N, start + BM)
        for first in range(begin, end, BN):
            n = first + tl.arange(0, BN)  # [BN]
            keys, values = _rows(k, n, N, C, RELU, BC), _rows(v, n, N, V, False, BV)
            seen = n[None, :] < N
            if CAUSAL:
                seen = seen & (n[None, :] <= m[:, None])
            _, ds = _near_gradients(queries, keys, values, grad, factor, extra, seen, scale, TAYLOR, PRECISION)
            slope = tl.dot(ds.to(keys.dtype), keys, slope, input_precision=PRECISION)
    slope *= scale
    if RELU:
        slope = tl.where(queries > 0.0, slope, 0.0)
    c = tl.arange(0, BC)
    at = dq + head * M * C + m[:, None] * C + c[None, :]
    tl.store(at, slope.to(dq.dtype.element_ty), mask=(m[:, None] < M) & (c[None, :] < C))


@triton.jit(do_not_specialize=COUNTS)
def keys_kernel(
    q, k, v, dy, t, e, state, dk, dv, M, N, C, V, F, W, CHUNK, CHUNKS, scale,
    TAYLOR: tl.constexpr, RELU: tl.constexpr, CAUSAL: tl.constexpr, NEAR: tl.constexpr, FAR: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BC: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, STATE_PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv of BN keys: `state` is that of the queries after the chunk (or of all queries)."""
    tiles = tl.cdiv(N, BN)
    head = (tl.program_id(0) // tiles).to(tl.int64)
    q += head * M * C
    k += head * N * C
    dy += head * M * V
    start = tl.program_id(0) % tiles * BN
    n = start + tl.arange(0, BN)  # [BN]
    chunk = start // CHUNK if CAUSAL else 0
    keys, values = _rows(k, n, N, C, RELU, BC), _rows(v + head * N * V, n, N, V, False, BV)
    slope, total = tl.zeros((BN, BC), tl.float32), tl.zeros((BN, BV), tl.float32)
    if FAR:
        at = state + (head * CHUNKS + chunk) * F * W
        ones = tl.full((BN,), 1.0, tl.float32)
        total, _ = _read(at, k, keys.to(tl.float32), n, N, 1.0, C, V, W, TAYLOR, BN, BC, BV, STATE_PRECISION)
        wide = values.to(tl.float32)
        slope = _slope(at, k, wide, ones, n, N, 1.0, C, V, W, TAYLOR, BC, BV, STATE_PRECISION)
        slope /= scale
    if NEAR:
        begin, end = 0, M
        if CAUSAL:
            begin, end = start, tl.minimum(M, (chunk + 1) * CHUNK)
        for first in range(begin, end, BM):
            m = first + tl.arange(0, BM)  # [BM]
            queries, grad = _rows(q, m, M, C, RELU, BC), _rows(dy, m, M, V, False, BV)
            factor = tl.load(t + head * M + m, mask=m < M, other=0.0)
            extra = tl.load(e + head * M + m, mask=m < M, other=0.0)
            seen = (m[:, None] < M) & (n[None, :] < N)
            if CAUSAL:
                seen = seen & (n[None, :] <= m[:, None])
            w, ds = _near_gradients(queries, keys, values, grad, factor, extra, seen, scale, TAYLOR, PRECISION)
            total = tl.dot(tl.trans(w.to(grad.dtype)), grad, total, input_precision=PRECISION)
            slope = tl.dot(tl.trans(ds.to(queries.dtype)), queries, slope, input_precision=PRECISION)
    slope *= scale
    if RELU:
        slope = tl.where(keys > 0.0, slope, 0.0)
    c, u = tl.arange(0, BC), tl.arange(0, BV)
    at = dk + head * N * C + n[:, None] * C + c[None, :]
    tl.store(at, slope.to(dk.dtype.element_ty), mask=(n[:, None] < N) & (c[None, :] < C))
    at = dv + head * N * V + n[:, None] * V + u[None, :]
    tl.store(at, total.to(dv.dtype.element_ty), mask=(n[:, None] < N) & (u[None, :] < V))
