"""From tensors to kernel launches: strides, grids, tile lists of block masks, memory of the results."""

from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from zoo.kernels.attention import choice
from zoo.kernels.attention.backward import delta_kernel, key_gradient_kernel, query_gradient_kernel
from zoo.kernels.attention.bias_gradient import bias_gradient_kernel
from zoo.kernels.attention.forward import forward_kernel, merge_kernel
from zoo.kernels.attention.masks import Masks
from zoo.kernels.attention.tiles import LOG2E

Strides = dict[str, int]


def forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, masks: Masks, scale: float) -> tuple[Tensor, Tensor]:
    """o (B, H, M, V) with the memory of (B, M, H, V), lse (B, H, M) float32."""
    batch, heads, queries, _ = q.shape
    o = q.new_empty(batch, queries, heads, v.shape[-1]).transpose(1, 2)
    lse = q.new_empty(batch, heads, queries, dtype=torch.float32)
    group = heads // k.shape[1]
    if queries == 1 and group > 1 and bias is None and masks.only_window and masks.window[0] < 0:
        # one query sees all keys: the heads that share keys become the queries of one head
        q, folded_o, folded_lse = (x.unflatten(1, (-1, group)).squeeze(3) for x in (q, o, lse))
        _forward_into(folded_o, folded_lse, q, k, v, None, Masks(), scale)
    else:
        _forward_into(o, lse, q, k, v, bias, masks, scale)
    return o, lse


def _forward_into(
    o: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, masks: Masks, scale: float
) -> None:
    q, k, v = (_rows_contiguous(x) for x in (q, k, v))
    width, width_v = choice.width_of(q.shape[-1]), choice.width_of(v.shape[-1])
    batch, queries = _batch_and_queries(q, masks)
    tiles = choice.forward_tiles(max(width, width_v), queries, busy=_busy(bias, masks), **_machine(q))
    row_tiles, keys = triton.cdiv(queries, tiles.rows), k.shape[2]
    programs = row_tiles * q.shape[1] * batch
    splits = 1
    if masks.cu_queries is None and masks.block_mask is None:
        splits = choice.splits_for(programs, keys, tiles.columns, _processors(q.device))
    target, target_lse = o, lse
    if splits > 1:
        target = q.new_empty(splits, *o.shape, dtype=torch.float32)
        target_lse = lse.new_empty(splits, *lse.shape)
    _launch(
        forward_kernel,
        programs * splits,
        tiles,
        q=q,
        k=k,
        v=v,
        o=target,
        lse=target_lse,
        **_strides(masks, q=q, k=k, v=v, o=target[0] if splits > 1 else target),
        **_lse_strides(masks, lse),
        stride_os=target.stride(0) if splits > 1 else 0,
        stride_ls=lse.numel(),
        **_bias(bias, q, k),
        **_mask_arguments(masks, q, k, tiles, by_key=False),
        H=q.shape[1],
        GROUP=q.shape[1] // k.shape[1],
        M_all=q.shape[2],
        N_all=keys,
        row_tiles=row_tiles,
        column_tiles=triton.cdiv(keys, tiles.columns),
        chunk=triton.cdiv(triton.cdiv(keys, tiles.columns), splits) * tiles.columns,
        scale2=scale * LOG2E.value,
        SPLITS=splits,
        **_sizes(q, v, tiles),
    )
    if splits > 1:
        merge_kernel[(lse.numel(),)](
            target,
            target_lse,
            o,
            lse,
            *o.stride()[:3],
            q.shape[1],
            q.shape[2],
            SPLITS=splits,
            SLOTS=triton.next_power_of_2(splits),
            DV=v.shape[-1],
            WIDTH_V=width_v,
        )


def backward(
    do: Tensor,
    dlse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    masks: Masks,
    scale: float,
    need_dbias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dq, dk, dv with the memory of (B, length, H, D), and dbias (empty unless needed)."""
    q, k, v, do = (_rows_contiguous(x) for x in (q, k, v, do))
    dq, dk, dv = (x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, k, v))
    width = max(choice.width_of(q.shape[-1]), choice.width_of(v.shape[-1]))
    batch, queries = _batch_and_queries(q, masks)
    heads, keys = q.shape[1], k.shape[2]
    of_lse = _lse_strides(masks, lse)
    delta = _delta(do, dlse.contiguous(), o, masks, of_lse)
    common = {
        **{"q": q, "k": k, "v": v, "do": do, "lse": lse, "delta": delta},
        **_strides(masks, q=q, k=k, v=v, do=do),
        **of_lse,
        **_bias(bias, q, k),
        "GROUP": heads // k.shape[1],
        "scale2": scale * LOG2E.value,
    }
    tiles = choice.query_gradient_tiles(width, busy=_busy(bias, masks), **_machine(q))
    row_tiles = triton.cdiv(queries, tiles.rows)
    _launch(
        query_gradient_kernel,
        row_tiles * heads * batch,
        tiles,
        **common,
        dq=dq,
        **_strides(masks, dq=dq),
        **_mask_arguments(masks, q, k, tiles, by_key=False),
        H=heads,
        M_all=q.shape[2],
        N_all=keys,
        row_tiles=row_tiles,
        column_tiles=triton.cdiv(keys, tiles.columns),
        scale=scale,
        **_sizes(q, v, tiles),
    )
    plain = bias is None and masks.hides_nothing
    tiles = choice.key_gradient_tiles(width, keys, busy=not plain, **_machine(q))
    column_tiles = triton.cdiv(keys, tiles.columns)
    _launch(
        key_gradient_kernel,
        column_tiles * k.shape[1] * batch,
        tiles,
        **common,
        dk=dk,
        dv=dv,
        **_strides(masks, dk=dk, dv=dv),
        **_mask_arguments(masks, q, k, tiles, by_key=True),
        KEY_HEADS=k.shape[1],
        M_all=q.shape[2],
        N_all=keys,
        row_tiles=triton.cdiv(queries, tiles.rows),
        column_tiles=column_tiles,
        scale=scale,
        **_sizes(q, v, tiles),
    )
    if bias is None or not need_dbias:
        return dq, dk, dv, q.new_empty(0)
    return dq, dk, dv, _bias_gradient(bias, q, k, v, masks, common)


def _delta(do: Tensor, dlse: Tensor, o: Tensor, masks: Masks, of_lse: Strides) -> Tensor:
    """delta (B, H, M) float32, what every gradient of a score subtracts."""
    tiles = choice.DELTA_TILES
    batch, queries = _batch_and_queries(o, masks)
    row_tiles = triton.cdiv(queries, tiles.rows)
    delta = torch.empty_like(dlse)
    _launch(
        delta_kernel,
        row_tiles * o.shape[1] * batch,
        tiles,
        o=o,
        do=do,
        dlse=dlse,
        delta=delta,
        cu_queries=masks.cu_queries,
        **_strides(masks, o=o, do=do),
        **of_lse,
        H=o.shape[1],
        M_all=o.shape[2],
        row_tiles=row_tiles,
        DV=o.shape[-1],
        WIDTH_V=choice.width_of(o.shape[-1]),
        BM=tiles.rows,
    )
    return delta


def _bias_gradient(bias: Tensor, q: Tensor, k: Tensor, v: Tensor, masks: Masks, common: dict[str, Any]) -> Tensor:
    full = (*q.shape[:3], k.shape[2])
    if not all(full):
        return torch.zeros_like(bias)
    width = max(choice.width_of(q.shape[-1]), choice.width_of(v.shape[-1]))
    tiles = choice.bias_gradient_tiles(width, **_machine(q))
    counts = (full[0], full[1], triton.cdiv(full[2], tiles.rows), triton.cdiv(full[3], tiles.columns))
    broadcast = [size == 1 for size in bias.shape]
    owned = steps = 1
    for shared, count in zip(broadcast, counts):
        owned, steps = (owned, steps * count) if shared else (owned * count, steps)
    parts = max(1, min(steps, 4 * _processors(q.device) // owned))
    partial = q.new_empty(parts, *bias.shape, dtype=torch.float32)
    mask_arguments = _mask_arguments(masks, q, k, tiles, by_key=False)
    unused = ("cu_queries", "cu_keys", "tile_counts", "tile_indices", "stride_tiles_b", "stride_tiles_h")
    _launch(
        bias_gradient_kernel,
        owned * parts,
        tiles,
        **common,
        dbias=partial,
        **{key: value for key, value in mask_arguments.items() if key not in unused},
        B=full[0],
        H=full[1],
        M=full[2],
        N=full[3],
        row_tiles=counts[2],
        column_tiles=counts[3],
        parts=parts,
        **dict(zip(("ALL_B", "ALL_H", "ALL_M", "ALL_N"), broadcast)),
        **_sizes(q, v, tiles),
    )
    return partial.sum(0).to(bias.dtype)


def _busy(bias: Tensor | None, masks: Masks) -> bool:
    return bias is not None or masks.block_mask is not None or masks.window[0] >= 0


def _launch(kernel: Any, programs: int, tiles: choice.Tiles, **arguments: Any) -> None:
    if programs:
        kernel[(programs,)](**arguments, num_warps=tiles.warps, num_stages=tiles.stages)


def _strides(masks: Masks, **tensors: Tensor) -> Strides:
    """stride_qb, stride_qh, stride_qm ... of (batch, head, length, channel) tensors; packed sequences have no batch."""
    found = {}
    for name, tensor in tensors.items():
        length = "n" if name in ("k", "v", "dk", "dv") else "m"
        found[f"stride_{name}b"] = 0 if masks.cu_queries is not None else tensor.stride(0)
        found[f"stride_{name}h"] = tensor.stride(1)
        found[f"stride_{name}{length}"] = tensor.stride(2)
    return found


def _lse_strides(masks: Masks, lse: Tensor) -> Strides:
    return {"stride_lb": 0 if masks.cu_queries is not None else lse.stride(0), "stride_lh": lse.stride(1)}


def _bias(bias: Tensor | None, q: Tensor, k: Tensor) -> dict[str, Any]:
    """The bias as it lies in memory; axes that are broadcast have stride 0."""
    strides = (0, 0, 0, 0) if bias is None else bias.expand(*q.shape[:3], k.shape[2]).stride()
    return {"bias": bias, **dict(zip((f"stride_bias_{axis}" for axis in "bhmn"), strides))}


def _mask_arguments(masks: Masks, q: Tensor, k: Tensor, tiles: choice.Tiles, *, by_key: bool) -> dict[str, Any]:
    left, right = masks.window
    found: dict[str, Any] = {
        "key_lengths": None if masks.key_lengths is None else masks.key_lengths.to(torch.int32),
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


def _sizes(q: Tensor, v: Tensor, tiles: choice.Tiles) -> dict[str, Any]:
    exact = q.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return {
        "D": q.shape[-1],
        "DV": v.shape[-1],
        "WIDTH": choice.width_of(q.shape[-1]),
        "WIDTH_V": choice.width_of(v.shape[-1]),
        "BM": tiles.rows,
        "BN": tiles.columns,
        "PRECISION": "ieee" if exact else "tf32",
    }


def _batch_and_queries(q: Tensor, masks: Masks) -> tuple[int, int]:
    """Sequences and queries of the longest one."""
    if masks.cu_queries is None:
        return q.shape[0], q.shape[2]
    return masks.cu_queries.shape[0] - 1, masks.longest


def _machine(q: Tensor) -> dict[str, Any]:
    """What the choice of tiles depends on beside the shape."""
    in_registers = q.is_cuda and not choice.AMD and torch.cuda.get_device_capability(q.device)[0] != 9
    return {"itemsize": q.element_size(), "in_registers": in_registers}


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def _rows_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
