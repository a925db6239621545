"""What an operation must cost: arithmetic, bytes that have to move, and the time no implementation can beat.

    shapes = {"batch": 64, "heads": 12, "q_len": 197, "kv_len": 197, "head_dim": 64}
    kernels.cost("attention", shapes, "bfloat16", "h200")

The floor is max(FLOPs / arithmetic rate, bytes / bandwidth, exponentials / their rate); rates are measured ones where
known. `io_bytes` is the theory of attention between two levels of memory (Saha and Ye, ICML 2024, arXiv 2402.07443).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "float64": 8}


@dataclass(frozen=True)
class Device:
    """Rates in units a second; `on_chip` bytes of fast memory for one core."""

    flops: Mapping[str, float]
    bandwidth: float
    exponentials: float
    on_chip: int


_HOPPER = {"bfloat16": 790e12, "float16": 790e12, "float32": 60e12, "int8": 1580e12, "float64": 60e12}
DEVICES = {
    "h200": Device(_HOPPER, 4.3e12, 3.70656e12, 232_448),
    "h100": Device(_HOPPER, 3.0e12, 3.70656e12, 232_448),
    "a100": Device(
        {"bfloat16": 260e12, "float16": 260e12, "float32": 19e12, "int8": 520e12, "float64": 19e12},
        1.7e12, 2.4e12, 166_912,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """flops; bytes that a fused implementation moves; exponentials; passes over the largest input; seconds = the time
    floor; bound = what sets it. on_chip_bytes: what has to move in and out of one core's fast memory, of attention's
    forward the lower bound at the device's size of it, elsewhere the same as bytes."""

    flops: float
    bytes: float
    exponentials: float = 0.0
    passes: int = 1
    seconds: float = 0.0
    bound: str = ""
    on_chip_bytes: float = 0.0


Shapes = Mapping[str, int]


def _attention_shape(s: Shapes, e: int) -> "AttentionShape":
    return AttentionShape(
        s["batch"], s["heads"], s.get("kv_heads", s["heads"]), s["q_len"], s["kv_len"], s["head_dim"], e,
        bool(s.get("causal", 0)),
    )  # fmt: skip


def _attention(s: Shapes, e: int) -> Cost:
    row = _attention_shape(s, e)
    if s.get("backward", 0):  # five products where the forward has two
        return Cost(2.5 * row.flops, row.floor_backward, row.pairs)
    return Cost(row.flops, row.floor, row.pairs)


def _quant_linear(s: Shapes, e: int) -> Cost:
    m, k, n = s["rows"], s["inputs"], s["outputs"]
    return Cost(2 * m * k * n, e * m * k + 2 * m * k + n * k + e * m * n + 4 * (m + n), passes=2)


def _linear_attention(s: Shapes, e: int) -> Cost:
    heads, n, c, v = s["heads"], s["tokens"], s["channels"], s["values"]
    return Cost(heads * _fewest_products(n, c, v, features=c, causal=False), 2 * e * heads * n * (c + v))


def _taylor_attention(s: Shapes, e: int) -> Cost:
    heads, n, c, v = s["heads"], s["tokens"], s["channels"], s["values"]
    features = 1 + c + c * (c + 1) // 2
    products = _fewest_products(n, c, v, features=features, causal=bool(s.get("causal", 0)))
    return Cost(heads * products, 2 * e * heads * n * (c + v))


def _fewest_products(n: int, c: int, v: int, *, features: int, causal: bool) -> int:
    """FLOPs of one head by the matrix of weights or by the state of features, whichever has fewer."""
    pairs = n * (n + 1) // 2 if causal else n * n
    return 2 * min(pairs * (c + v), 2 * n * features * (v + 1))


def _max_similarity(s: Shapes, e: int) -> Cost:
    b, length, d, v = s["batch"], s["positions"], s["features"], s["concepts"]
    return Cost(2 * b * length * d * v, e * (b * length * d + v * d) + 8 * b * v)


def _kmeans(s: Shapes, e: int) -> Cost:
    n, k, d = s["points"], s["clusters"], s["features"]
    return Cost(2 * n * k * d + 3 * n * k, e * d * (n + k) + 4 * n + 4 * (n + k))


def _rational(s: Shapes, e: int) -> Cost:
    if s.get("backward", 0):
        return Cost(60 * s["values"], 3 * e * s["values"])
    return Cost(20 * s["values"], 2 * e * s["values"])


def _preprocess(s: Shapes, e: int) -> Cost:
    source, result = s["batch"] * s["height"] * s["width"] * 3, s["batch"] * s["size"] ** 2 * 3
    taps = (2 * max(1, math.ceil(s["height"] / s["size"]))) * (2 * max(1, math.ceil(s["width"] / s["size"])))
    return Cost(2 * taps * result, source + e * result)


def _fftconv(s: Shapes, e: int) -> Cost:
    rows, n = s["batch"] * s["channels"], s.get("fft_size", 2 * s["length"])
    small = 2 ** (int(math.log2(n)) // 2)
    return Cost(rows * (16 * n * (n // small + small) + 6 * n), 2 * e * rows * s["length"] + 8 * s["channels"] * n)


def _monarch(s: Shapes, e: int) -> Cost:
    size = s["k"] * s["q"] * s["p"] + s["l"] * s["s"] * s["r"]
    moved = s["batch"] * (s["k"] * s["p"] + s["l"] * s["s"] + 2 * s["k"] * s["q"]) + size
    return Cost(2 * s["batch"] * size, e * moved, passes=2)


def _retrieval_head(s: Shapes, e: int) -> Cost:
    tokens, clusters, size = s["tokens"], s["clusters"], s["rows_per_cluster"]
    read = clusters + size * min(clusters, tokens * s["probes"])
    products = tokens * (clusters + size * s["probes"])
    return Cost(2 * s["features"] * products, e * s["features"] * (read + tokens), passes=2)


OPERATIONS: dict[str, Callable[[Shapes, int], Cost]] = {
    "attention": _attention,
    "fftconv": _fftconv,
    "kmeans": _kmeans,
    "linear_attention": _linear_attention,
    "max_similarity": _max_similarity,
    "monarch": _monarch,
    "preprocess": _preprocess,
    "quant_linear": _quant_linear,
    "rational": _rational,
    "retrieval_head": _retrieval_head,
    "taylor_attention": _taylor_attention,
}


def cost(op: str, shapes: Shapes, dtype: str = "bfloat16", device: str = "h200") -> Cost:
    """What the forward of `op` must cost on a device, with its time floor; of attention and rational, with a size
    "backward" of 1, what the backward alone must.

    Args:
        op: a key of `OPERATIONS`.
        shapes: sizes by name, as the operation's entry in this file reads them.
        dtype: "bfloat16", "float16", "float32" or "float64"; quant_linear multiplies int8 whatever it says.
        device: a key of `DEVICES`.
    Raises:
        ValueError: an unknown operation, device or dtype, or a size that is missing.
    """
    for kind, name, known in (("operation", op, OPERATIONS), ("device", device, DEVICES), ("dtype", dtype, BYTES)):
        if name not in known:
            raise ValueError(f"cost: unknown {kind} {name!r}, choose one of {', '.join(sorted(known))}")
    try:
        needed = OPERATIONS[op](shapes, BYTES[dtype])
    except KeyError as missing:
        raise ValueError(f"cost: {op} needs the size {missing.args[0]!r}") from None
    machine = DEVICES[device]
    floors = {
        "arithmetic": needed.flops / machine.flops["int8" if op == "quant_linear" else dtype],
        "bandwidth": needed.bytes / machine.bandwidth,
        "exponentials": needed.exponentials / machine.exponentials,
    }
    bound = max(floors, key=lambda name: floors[name])
    moved = needed.bytes
    if op == "attention" and not shapes.get("backward", 0):
        moved = max(moved, _attention_shape(shapes, BYTES[dtype]).lower_bound(machine.on_chip // BYTES[dtype]))
    return replace(needed, seconds=floors[bound], bound=bound, on_chip_bytes=moved)


@dataclass(frozen=True)
class AttentionShape:
    """Counts of one attention call; bytes by the name of what is compared.

    pairs: visible query-key pairs (causal = bottom-right aligned). floor: every tensor once. unfused: the scores are
    written and read twice. lower_bound: see `io_bytes`. tile_requests: what the programs ask of the next level, keys
    again for every query tile.
    """

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    bytes_per_element: int = 2
    causal: bool = False

    def visible(self, row: int) -> int:
        """Keys that the query `row` sees."""
        return max(0, min(self.kv_len, row + self.kv_len - self.q_len + 1)) if self.causal else self.kv_len

    @property
    def pairs(self) -> int:
        return self.batch * self.heads * sum(self.visible(row) for row in range(self.q_len))

    @property
    def flops(self) -> int:
        return 4 * self.head_dim * self.pairs

    @property
    def floor(self) -> int:
        tensors = 2 * self.heads * self.q_len + 2 * self.kv_heads * self.kv_len
        return self.batch * (self.bytes_per_element * self.head_dim * tensors + 4 * self.heads * self.q_len)

    @property
    def floor_backward(self) -> int:
        tensors = 4 * self.heads * self.q_len + 4 * self.kv_heads * self.kv_len
        return self.batch * (self.bytes_per_element * self.head_dim * tensors + 8 * self.heads * self.q_len)

    @property
    def unfused(self) -> int:
        scores = self.batch * self.heads * self.q_len * self.kv_len
        return self.floor - 4 * self.batch * self.heads * self.q_len + 4 * self.bytes_per_element * scores

    def lower_bound(self, sram: int) -> float:
        d = self.head_dim
        again = self.pairs * (d**2 / sram if sram >= d**2 else d / math.sqrt(sram))
        return self.floor - 4 * self.batch * self.heads * self.q_len + self.bytes_per_element * again

    def tile_requests(self, tile_m: int, tile_n: int) -> int:
        visited = sum(
            -(-self.visible(min(first + tile_m, self.q_len) - 1) // tile_n) for first in range(0, self.q_len, tile_m)
        )
        rows = self.batch * self.heads * self.q_len
        keys = self.batch * self.heads * visited * tile_n * self.head_dim * 2
        return self.bytes_per_element * (2 * rows * self.head_dim + keys) + 4 * rows


def io_bytes(
    seq: int, dim: int, sram: int, *, e: int = 2, heads: int = 1, batch: int = 1,
    mode: Literal["theory", "tile", "floor", "unfused"],
) -> float:  # fmt: skip
    """Bytes between a slow memory and a fast one of `sram` elements, for square attention.

    theory: e (4 N d + N^2 d^2 / M), or N^2 d / sqrt(M) once M < d^2, where tiling as for a matrix product is better;
    tile: queries resident, keys streamed, with the largest query tile that fits, M / (4 d) rows; floor, unfused: those
    of `AttentionShape`, whatever fits.
    """
    shape = AttentionShape(batch, heads, heads, seq, seq, dim, e)
    if mode != "tile":
        return {"theory": shape.lower_bound(sram), "floor": shape.floor, "unfused": shape.unfused}[mode]
    rows = max(1, sram // (4 * dim))
    return batch * heads * e * (2 * seq * dim + 2 * seq * dim * math.ceil(seq / rows))


PASSES = {"three_pass": 3, "local_max": 2, "running_max": 1}
"""How often softmax revisits the keys of a query (FuseMax, Nayak et al., MICRO 2024)."""


def passes(variant: str) -> int:
    """Passes over the keys of one query: "three_pass" (as written), "local_max", "running_max" (FlashAttention)."""
    if variant not in PASSES:
        raise ValueError(f"passes: unknown variant {variant!r}, choose one of {', '.join(PASSES)}")
    return PASSES[variant]


def buffer_elements(variant: str, keys: int) -> int:
    """Elements that must stay on chip for each query row so that no pass goes back to memory."""
    return keys if passes(variant) > 1 else 0
