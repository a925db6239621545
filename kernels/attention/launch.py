"""From tensors to kernel launches: tiles, grids, memory of the results. arguments.py has what the kernels are given."""

from typing import Any

import torch
import triton
from torch import Tensor

from zoo.kernels.attention import choice
from zoo.kernels.attention.arguments import (
    Strides,
    batch_and_queries,
    bias_arguments,
    lse_strides,
    mask_arguments,
    rows_contiguous,
    sizes,
    strides,
)
from zoo.kernels.attention.backward import delta_kernel, key_gradient_kernel, query_gradient_kernel
from zoo.kernels.attention.bias_gradient import bias_gradient_kernel
from zoo.kernels.attention.forward import forward_kernel, merge_kernel
from zoo.kernels.attention.masks import Masks
from zoo.kernels.attention.tiles import LOG2E
from zoo.kernels.dispatch import FUSED, machine_of, on_its_gpu, processors


@on_its_gpu
def forward(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, masks: Masks, scale: float, unified_max: float | None
) -> tuple[Tensor, Tensor]:
    """o (B, H, M, V) with the memory of (B, M, H, V), lse (B, H, M) float32."""
    batch, heads, queries, _ = q.shape
    o = q.new_empty(batch, queries, heads, v.shape[-1]).transpose(1, 2)
    lse = q.new_empty(batch, heads, queries, dtype=torch.float32)
    group = heads // k.shape[1]
    if queries == 1 and group > 1 and bias is None and masks.only_window and masks.window[0] < 0:
        # one query sees all keys: the heads that share keys become the queries of one head
        q, folded_o, folded_lse = (x.unflatten(1, (-1, group)).squeeze(3) for x in (q, o, lse))
        _forward_into(folded_o, folded_lse, q, k, v, None, Masks(), scale, unified_max)
    else:
        _forward_into(o, lse, q, k, v, bias, masks, scale, unified_max)
    return o, lse


def _forward_into(
    o: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    masks: Masks,
    scale: float,
    unified_max: float | None,
) -> None:
    q, k, v = (rows_contiguous(x) for x in (q, k, v))
    width, width_v = choice.width_of(q.shape[-1]), choice.width_of(v.shape[-1])
    batch, queries = batch_and_queries(q, masks)
    tiles = choice.forward_tiles(
        max(width, width_v), queries, busy=_busy(bias, masks), wide_bias=_wide(bias, q), **_choice(q)
    )
    row_tiles, keys = triton.cdiv(queries, tiles.rows), k.shape[2]
    programs = row_tiles * q.shape[1] * batch
    splits = 1
    if masks.cu_queries is None and masks.block_mask is None:
        splits = choice.splits_for(programs, keys, tiles.columns, processors(q.device))
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
        **strides(masks, q=q, k=k, v=v, o=target[0] if splits > 1 else target),
        **lse_strides(masks, lse),
        stride_os=target.stride(0) if splits > 1 else 0,
        stride_ls=lse.numel(),
        **bias_arguments(bias, q, k),
        **mask_arguments(masks, q, k, tiles, by_key=False),
        H=q.shape[1],
        GROUP=q.shape[1] // k.shape[1],
        M_all=q.shape[2],
        N_all=keys,
        row_tiles=row_tiles,
        column_tiles=triton.cdiv(keys, tiles.columns),
        chunk=triton.cdiv(triton.cdiv(keys, tiles.columns), splits) * tiles.columns,
        scale2=scale * LOG2E.value,
        phi2=None if unified_max is None else unified_max * LOG2E.value,
        splits=splits,
        **sizes(q, v, tiles),
        **choice.liberties(machine_of(q.device), max(width, width_v), q.element_size(), unified_max is not None),
    )
    if splits > 1:
        _launch(
            merge_kernel,
            lse.numel(),
            choice.MERGE_TILES,
            o_parts=target,
            lse_parts=target_lse,
            o=o,
            lse=lse,
            **strides(masks, o=o),
            H=q.shape[1],
            M=q.shape[2],
            SPLITS=splits,
            DV=v.shape[-1],
            WIDTH_V=width_v,
        )


@on_its_gpu
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
    q, k, v, do = (rows_contiguous(x) for x in (q, k, v, do))
    dq, dk, dv = (x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, k, v))
    width = max(choice.width_of(q.shape[-1]), choice.width_of(v.shape[-1]))
    batch, queries = batch_and_queries(q, masks)
    heads, keys = q.shape[1], k.shape[2]
    of_lse = lse_strides(masks, lse)
    delta = _delta(do, dlse.contiguous(), o, masks, of_lse)
    common = {
        **{"q": q, "k": k, "v": v, "do": do, "lse": lse, "delta": delta},
        **strides(masks, q=q, k=k, v=v, do=do),
        **of_lse,
        **bias_arguments(bias, q, k),
        "GROUP": heads // k.shape[1],
        "scale2": scale * LOG2E.value,
    }
    tiles = choice.query_gradient_tiles(width, busy=_busy(bias, masks), wide_bias=_wide(bias, q), **_choice(q))
    row_tiles = triton.cdiv(queries, tiles.rows)
    _launch(
        query_gradient_kernel,
        row_tiles * heads * batch,
        tiles,
        **common,
        dq=dq,
        **strides(masks, dq=dq),
        **mask_arguments(masks, q, k, tiles, by_key=False),
        H=heads,
        M_all=q.shape[2],
        N_all=keys,
        row_tiles=row_tiles,
        column_tiles=triton.cdiv(keys, tiles.columns),
        scale=scale,
        **sizes(q, v, tiles),
    )
    plain = bias is None and masks.hides_nothing
    tiles = choice.key_gradient_tiles(width, keys, busy=not plain, **_choice(q))
    column_tiles = triton.cdiv(keys, tiles.columns)
    _launch(
        key_gradient_kernel,
        column_tiles * k.shape[1] * batch,
        tiles,
        **common,
        dk=dk,
        dv=dv,
        **strides(masks, dk=dk, dv=dv),
        **mask_arguments(masks, q, k, tiles, by_key=True),
        KEY_HEADS=k.shape[1],
        M_all=q.shape[2],
        N_all=keys,
        row_tiles=triton.cdiv(queries, tiles.rows),
        column_tiles=column_tiles,
        scale=scale,
        **sizes(q, v, tiles),
    )
    if bias is None or not need_dbias:
        return dq, dk, dv, q.new_empty(0)
    return dq, dk, dv, _bias_gradient(bias, q, k, v, masks, common)


def _delta(do: Tensor, dlse: Tensor, o: Tensor, masks: Masks, of_lse: Strides) -> Tensor:
    """delta (B, H, M) float32, what every gradient of a score subtracts."""
    tiles = choice.DELTA_TILES
    batch, queries = batch_and_queries(o, masks)
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
        **strides(masks, o=o, do=do),
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
    tiles = choice.bias_gradient_tiles(width, **_choice(q))
    counts = (full[0], full[1], triton.cdiv(full[2], tiles.rows), triton.cdiv(full[3], tiles.columns))
    broadcast = [size == 1 for size in bias.shape]
    owned = steps = 1
    for shared, count in zip(broadcast, counts):
        owned, steps = (owned, steps * count) if shared else (owned * count, steps)
    parts = max(1, min(steps, 4 * processors(q.device) // owned))
    partial = q.new_empty(parts, *bias.shape, dtype=torch.float32)
    hides = mask_arguments(masks, q, k, tiles, by_key=False)
    unused = ("cu_queries", "cu_keys", "tile_counts", "tile_indices", "stride_tiles_b", "stride_tiles_h")
    _launch(
        bias_gradient_kernel,
        owned * parts,
        tiles,
        **common,
        dbias=partial,
        **{key: value for key, value in hides.items() if key not in unused},
        B=full[0],
        H=full[1],
        M=full[2],
        N=full[3],
        row_tiles=counts[2],
        column_tiles=counts[3],
        parts=parts,
        **dict(zip(("ALL_B", "ALL_H", "ALL_M", "ALL_N"), broadcast)),
        **sizes(q, v, tiles),
    )
    return partial.sum(0).to(bias.dtype)


def _busy(bias: Tensor | None, masks: Masks) -> bool:
    return bias is not None or masks.block_mask is not None or masks.window[0] >= 0


def _wide(bias: Tensor | None, q: Tensor) -> bool:
    return bias is not None and bias.itemsize > q.itemsize


def _launch(kernel: Any, programs: int, tiles: choice.Tiles, **arguments: Any) -> None:
    if programs:
        kernel[(programs,)](**arguments, num_warps=tiles.warps, num_stages=tiles.stages, **FUSED)


def _choice(q: Tensor) -> dict[str, Any]:
    """What the choice of tiles depends on beside the shape."""
    return {"itemsize": q.element_size(), "machine": machine_of(q.device)}
