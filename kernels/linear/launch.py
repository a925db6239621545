"""From tensors to launches of the linear-attention kernels: near or far keys, chunks, states, tiles."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from zoo.kernels.dispatch import FUSED, INTERPRETED, Machine, machine_of, on_its_gpu
from zoo.kernels.linear.reference import Kind
from zoo.kernels.linear.scan import scan
from zoo.kernels.linear.triton import forward_kernel, keys_kernel, queries_kernel, state_kernel

TILES = {
    4: {"state": (32, 8, 1), "forward": (32, 8, 1), "queries": (16, 8, 1), "keys": (16, 8, 1)},
    2: {"state": (64, 4, 2), "forward": (64, 4, 2), "queries": (64, 8, 2), "keys": (32, 8, 2)},
}
"""bytes of an element, kernel: queries or keys of a tile, warps, stages."""
OTHERS = {
    "sm_80": {"forward": (32, 4, 2), "queries": (32, 8, 2)},
    "gfx942": {"keys": (32, 4, 2)},
}
"""The same for 16 bits on machines where those spill: sm_80 cannot hold the rows of a state that 64 queries meet at
once, and eight of AMD's wider warps have fewer registers each."""
CHUNK = 256
"""Keys of one state under a causal mask."""
PROGRAMS = 512
"""Programs that the state of all keys is divided into."""


def tile_of(kernel: str, itemsize: int, machine: Machine) -> tuple[int, int, int]:
    """Queries or keys of a kernel's tile, warps, stages."""
    others = OTHERS.get(machine, {}) if itemsize == 2 else {}
    return others.get(kernel, TILES[itemsize][kernel])


class Plan(NamedTuple):
    """near: tiles of weights; far: states, `chunks` of `chunk` keys each."""

    near: bool
    far: bool
    chunk: int
    chunks: int


def plan(queries: int, keys: int, channels: int, values: int, *, kind: Kind, causal: bool) -> Plan:
    """Tiles of weights where they need fewer multiplications than states, or where one chunk holds all keys."""
    features = feature_count(channels, kind)
    pairs = queries * keys // 2 if causal else queries * keys
    if pairs * (channels + values) <= (queries + keys) * features * (values + 1) or (causal and keys <= CHUNK):
        return Plan(True, False, max(queries, keys, 1), 1)
    return Plan(causal, True, CHUNK if causal else keys, triton.cdiv(keys, CHUNK) if causal else 1)


def feature_count(channels: int, kind: Kind) -> int:
    """Rows of a state."""
    return 1 + channels + channels**2 if kind == "taylor" else channels


def state_width(values: int) -> int:
    """Columns of a state: the values and 1, rounded up so that rows are aligned."""
    return triton.cdiv(values + 1, 4) * 4


@on_its_gpu
def forward(
    q: Tensor, k: Tensor, v: Tensor, kind: Kind, causal: bool, eps: float, chosen: Plan | None = None
) -> tuple[Tensor, Tensor]:
    """q (B, H, M, C), k (B, H, N, C), v (B, H, N, V) -> y (B, H, M, V) like v, z (B, H, M) float32."""
    q, k, v = (x.contiguous() for x in (q, k, v))
    chosen = chosen or _plan(q, k, v, kind, causal)
    y = torch.empty(*q.shape[:3], v.shape[3], dtype=v.dtype, device=v.device)
    z = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    if not y.numel():
        return y, z.fill_(eps)
    state = _before(_state(k, v, None, None, kind, causal, chosen), causal) if chosen.far else z
    tiles = _tiles(q, "forward")
    forward_kernel[(triton.cdiv(q.shape[2], tiles["BM"]) * q.shape[0] * q.shape[1],)](
        q, k, v, state, y, z, eps=eps, **_arguments(q, k, v, kind, causal, chosen), **tiles
    )
    return y, z


@on_its_gpu
def backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, z: Tensor, kind: Kind, causal: bool,
    chosen: Plan | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv like q, k, v."""
    dy, q, k, v = (x.contiguous() for x in (dy, q, k, v))
    dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
    chosen = chosen or _plan(q, k, v, kind, causal)
    if not dy.numel() or not k.shape[2]:
        return dq.zero_(), dk.zero_(), dv.zero_()
    t = 1 / z
    e = -(dy.float() * y.float()).sum(-1) * t
    of_keys = of_queries = t
    if chosen.far:
        of_keys = _before(_state(k, v, None, None, kind, causal, chosen), causal)
        of_queries = _after(_state(q, dy, t, e, kind, causal, chosen), causal)
    heads, arguments = q.shape[0] * q.shape[1], _arguments(q, k, v, kind, causal, chosen)
    tiles, key_tiles = _tiles(q, "queries"), _tiles(q, "keys")
    queries_kernel[(triton.cdiv(q.shape[2], tiles["BM"]) * heads,)](
        q, k, v, dy, t, e, of_keys, dq, **arguments, **tiles
    )  # fmt: skip
    keys_kernel[(triton.cdiv(k.shape[2], key_tiles["BN"]) * heads,)](
        q, k, v, dy, t, e, of_queries, dk, dv, **arguments, **key_tiles
    )  # fmt: skip
    return dq, dk, dv


def _plan(q: Tensor, k: Tensor, v: Tensor, kind: Kind, causal: bool) -> Plan:
    return plan(q.shape[2], k.shape[2], k.shape[3], v.shape[3], kind=kind, causal=causal)


def _state(x: Tensor, u: Tensor, t: Tensor | None, e: Tensor | None, kind: Kind, causal: bool, chosen: Plan) -> Tensor:
    """State of keys (x = k, u = v) or of queries (x = q, u = dy, weighted by t and e) by chunk: (B H, chunks, F, W)."""
    batch, heads, rows, channels = x.shape
    blocks, features = channels + 1 if kind == "taylor" else 1, feature_count(channels, kind)
    chunk, chunks = chosen.chunk, chosen.chunks
    if not causal:
        splits = max(1, min(PROGRAMS // (batch * heads * blocks), triton.cdiv(rows, CHUNK)))
        chunk = triton.cdiv(rows, splits)
        chunks = triton.cdiv(rows, chunk)
    width = state_width(u.shape[3])
    state = torch.empty(batch * heads, chunks, features, width, dtype=torch.float32, device=x.device)
    tile, warps, stages = tile_of("state", x.element_size(), machine_of(x.device))
    weights = (x, x) if t is None or e is None else (t, e)
    state_kernel[(blocks * batch * heads, chunks)](
        x, u, *weights, state, rows, channels, u.shape[3], features, width, chunk,
        _scale(x, kind) if t is not None else 1.0, WEIGHTED=t is not None, PRECISION=_precisions(x)["STATE_PRECISION"],
        BN=tile, num_warps=warps, num_stages=stages, **FUSED, **flags(kind), **_widths(x, u),
    )  # fmt: skip
    return state


def _before(state: Tensor, causal: bool) -> Tensor:
    """For each chunk the sum of the states of earlier chunks; without a mask that of all."""
    if not causal:
        return state.sum(1, keepdim=True)
    return scan(state)


def _after(state: Tensor, causal: bool) -> Tensor:
    """For each chunk the sum of the states of later chunks; without a mask that of all."""
    return scan(state, reverse=True) if causal else _before(state, causal)


def _scale(q: Tensor, kind: Kind) -> float:
    return q.shape[3] ** -0.5 if kind == "taylor" else 1.0


def flags(kind: Kind) -> dict[str, bool]:
    """What the kernels are told about the kind."""
    return {"TAYLOR": kind == "taylor", "RELU": kind == "relu"}


def _widths(x: Tensor, u: Tensor) -> dict[str, int]:
    """Channels and values of a tile."""
    channels, values = (max(16, triton.next_power_of_2(tensor.shape[3])) for tensor in (x, u))
    return {"BC": channels, "BV": values}


def _tiles(q: Tensor, kernel: str) -> dict[str, int]:
    rows, warps, stages = tile_of(kernel, q.element_size(), machine_of(q.device))
    return {"BM": rows, "BN": rows, "num_warps": warps, "num_stages": stages, **FUSED}


def precisions(itemsize: int, amd: bool) -> dict[str, str]:
    """Of the products of tiles and of states: float32, whatever PyTorch allows elsewhere, because sums run over all
    tokens; but of 16-bit inputs TF32 keeps more digits than they have."""
    exact = "ieee" if amd or INTERPRETED else "tf32x3"
    return {"PRECISION": exact, "STATE_PRECISION": "tf32" if itemsize == 2 and exact == "tf32x3" else exact}


def _precisions(x: Tensor) -> dict[str, str]:
    return precisions(x.element_size(), bool(torch.version.hip))


def _arguments(q: Tensor, k: Tensor, v: Tensor, kind: Kind, causal: bool, chosen: Plan) -> dict[str, Any]:
    """What the three kernels of queries and keys share."""
    features = feature_count(k.shape[3], kind)
    return {
        "M": q.shape[2], "N": k.shape[2], "C": k.shape[3], "V": v.shape[3], "F": features,
        "W": state_width(v.shape[3]), "CHUNK": chosen.chunk, "CHUNKS": chosen.chunks,
        "scale": _scale(q, kind), "CAUSAL": causal, "NEAR": chosen.near, "FAR": chosen.far,
        **_precisions(q), **flags(kind), **_widths(k, v),
    }  # fmt: skip
