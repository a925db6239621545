"""From tensors to the kernels' arguments: strides, sizes, masks, tile lists of block masks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.attention import choice
from zoo.kernels.attention.masks import Masks
from zoo.kernels.dispatch import allows_tf32, has_tf32

Strides = dict[str, int]


def strides(masks: Masks, **tensors: Tensor) -> Strides:
    """stride_qb, stride_qh, stride_qm ... of (batch, head, length, channel) tensors; packed sequences have no batch."""
    found = {}
    for name, tensor in tensors.items():
        length = "n" if name in ("k", "v", "dk", "dv") else "m"
        found[f"stride_{name}b"] = 0 if masks.cu_queries is not None else tensor.stride(0)
        found[f"stride_{name}h"] = tensor.stride(1)
        found[f"stride_{name}{length}"] = tensor.stride(2)
    return found


def lse_strides(masks: Masks, lse: Tensor) -> Strides:
    return {"stride_lb": 0 if masks.cu_queries is not None else lse.stride(0), "stride_lh": lse.stride(1)}


def bias_arguments(bias: Tensor | None, q: Tensor, k: Tensor) -> dict[str, Any]:
    """The bias as it lies in memory; axes that are broadcast have stride 0."""
    strides = (0, 0, 0, 0) if bias is None else bias.expand(*q.shape[:3], k.shape[2]).stride()
    return {"bias": bias, **dict(zip((f"stride_bias_{axis}" for axis in "bhmn"), strides))}


def mask_arguments(masks: Masks, q: Tensor, k: Tensor, tiles: choice.Tiles, *, by_key: bool) -> dict[str, Any]:
    left, right = masks.window
    found: dict[str, Any] = {
        "key_lengths": masks.key_lengths,
        "cu_queries": masks.cu_queries,
        "cu_keys": masks.cu_keys,
        "left": left if left >= 0 else None,
        "right": right if right >= 0 else None,
        "blocks": None,
        "block_rows": masks.block_size[0],
        "block_columns": masks.block_size[1],
        "blocks_per_row": 0,
        "stride_blocks_b": 0,
        "stride_blocks_h": 0,
        "tile_counts": None,
        "tile_indices": None,
        "stride_tiles_b": 0,
        "stride_tiles_h": 0,
    }
    if masks.block_mask is not None:
        blocks = masks.block_mask.contiguous().view(torch.uint8)
        counts, indices = tile_lists(masks, q.shape[2], k.shape[2], tiles.rows, tiles.columns, by_key=by_key)
        strides = _broadcast_strides(blocks), _broadcast_strides(counts)
        found |= {"blocks": blocks, "blocks_per_row": blocks.shape[-1], "tile_counts": counts, "tile_indices": indices}
        found |= dict(
            zip(("stride_blocks_b", "stride_blocks_h", "stride_tiles_b", "stride_tiles_h"), (*strides[0], *strides[1]))
        )
    return found


def _broadcast_strides(tensor: Tensor) -> tuple[int, ...]:
    return tuple(0 if size == 1 else stride for size, stride in zip(tensor.shape[:2], tensor.stride()[:2]))


def tile_lists(
    masks: Masks, queries: int, keys: int, rows: int, columns: int, *, by_key: bool
) -> tuple[Tensor, Tensor]:
    """Which tiles of rows x columns hold a visible block: counts (.., T) and indices (.., T, T'), first those to visit.

    T are query tiles and T' key tiles; `by_key` the other way round. A tile's blocks are counted by the summed-area
    table of the block mask, so tiles and blocks need not fit into each other.
    """
    assert masks.block_mask is not None
    device = masks.block_mask.device
    area = F.pad(masks.block_mask.to(torch.int32).cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    first_row = torch.arange(0, queries, rows, device=device)
    first_column = torch.arange(0, keys, columns, device=device)
    last_row, last_column = (first_row + rows).clamp_max(queries) - 1, (first_column + columns).clamp_max(keys) - 1
    top, bottom = first_row // masks.block_size[0], last_row // masks.block_size[0] + 1
    start, stop = first_column // masks.block_size[1], last_column // masks.block_size[1] + 1
    upper, lower = area[..., top, :], area[..., bottom, :]
    seen = lower[..., stop] - lower[..., start] - upper[..., stop] + upper[..., start] > 0
    left, right = masks.window
    shift = keys - queries
    if left >= 0:
        seen = seen & (last_column - (first_row[:, None] + shift) >= -left)
    if right >= 0:
        seen = seen & (first_column - (last_row[:, None] + shift) <= right)
    if by_key:
        seen = seen.mT
    order = seen.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    return seen.sum(-1, dtype=torch.int32).contiguous(), order.to(torch.int32).contiguous()


def sizes(q: Tensor, v: Tensor, tiles: choice.Tiles) -> dict[str, Any]:
    """The constants that every kernel has."""
    exact = not (allows_tf32() if q.dtype == torch.float32 else has_tf32())
    (width, extra), (width_v, extra_v) = choice.parts_of(q.shape[-1]), choice.parts_of(v.shape[-1])
    return {
        **{"D": q.shape[-1], "WIDTH": width, "EXTRA": extra},
        **{"DV": v.shape[-1], "WIDTH_V": width_v, "EXTRA_V": extra_v},
        **{"BM": tiles.rows, "BN": tiles.columns, "PRECISION": "ieee" if exact else "tf32"},
    }


def batch_and_queries(q: Tensor, masks: Masks) -> tuple[int, int]:
    """Sequences and queries of the longest one."""
    if masks.cu_queries is None:
        return q.shape[0], q.shape[2]
    return masks.cu_queries.shape[0] - 1, masks.longest


def rows_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
