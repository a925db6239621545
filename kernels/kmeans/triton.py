"""K-means on a GPU, after Flash-KMeans (Yang et al. 2026, arXiv 2603.09229).

Assign: a program owns BN points and walks over the centroids with a running minimum; the N x K distances never reach
memory. Update: points are sorted by cluster and a program adds up a stretch of one cluster, instead of one atomic
addition for each point and feature; the partial sums are added in a fixed order, so two runs give the same bits.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.kernels.aot import Configuration
from zoo.kernels.dispatch import FUSED, dot_precision, dot_precisions, on_its_gpu
from zoo.kernels.kmeans.aten import means

FIRST_NAN = tl.constexpr(1 << 30)
"""What lies below 0 by less than this is the index of a NaN."""


@triton.jit
def assign_kernel(
    x, centroids, half, ids, distances, N, K, D,
    BN: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """ids[n] = argmin_k |c_k|^2 / 2 - <x_n, c_k>, the smallest k on a tie; `half` holds |c_k|^2 / 2."""
    tiles = tl.cdiv(N, BN)
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    x += batch * N * D
    centroids += batch * K * D
    n = tl.program_id(0) % tiles * BN + tl.arange(0, BN)  # [BN]
    d = tl.arange(0, BD)  # [BD]
    square = tl.zeros((BN,), tl.float32)
    for start in range(0, D, BD):
        at = x + n[:, None].to(tl.int64) * D + start + d[None, :]
        value = tl.load(at, mask=(n[:, None] < N) & (start + d[None, :] < D), other=0.0).to(tl.float32)
        square += tl.sum(value * value, 1)
    least = tl.full((BN,), float("inf"), tl.float32)
    nearest = tl.zeros((BN,), tl.int32)
    for first in range(0, K, BK):
        k = first + tl.arange(0, BK)  # [BK]
        product = tl.zeros((BN, BK), tl.float32)
        for start in range(0, D, BD):
            x_at = x + n[:, None].to(tl.int64) * D + start + d[None, :]
            rows = tl.load(x_at, mask=(n[:, None] < N) & (start + d[None, :] < D), other=0.0)
            c_at = centroids + k[None, :].to(tl.int64) * D + start + d[:, None]
            columns = tl.load(c_at, mask=(k[None, :] < K) & (start + d[:, None] < D), other=0.0)
            product = tl.dot(rows, columns, product, input_precision=PRECISION)
        value = tl.load(half + batch * K + k, mask=k < K, other=float("inf"))[None, :] - product
        lowest = tl.min(value, 1)
        # where it is, or below 0 where the first NaN is, which a minimum leaves out and torch.argmin takes first
        where = tl.where(value == lowest[:, None], k[None, :], FIRST_NAN - 1)
        of_nan = tl.where(k < K, k - FIRST_NAN, FIRST_NAN - 1)
        where = tl.min(tl.where(value == value, where, of_nan[None, :]), 1)
        broken = where < 0
        better = (lowest < least) | broken  # strictly: the earlier centroid keeps a tie
        better = better & (least == least)
        least = tl.where(better, tl.where(broken, float("nan"), lowest), least)
        nearest = tl.where(better, tl.where(broken, where + FIRST_NAN, where), nearest)
    distance = square + 2 * least
    tl.store(ids + batch * N + n, nearest, mask=n < N)
    tl.store(distances + batch * N + n, tl.where(distance < 0.0, 0.0, distance), mask=n < N)


@triton.jit
def sum_kernel(x, order, offsets, sums, D, SPLITS: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr):
    """sums[split, k] = sum of x[order[p]] over this split's share of the positions p of cluster k."""
    cluster = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    d = tl.program_id(2) * BD + tl.arange(0, BD)  # [BD]
    begin, end = tl.load(offsets + cluster), tl.load(offsets + cluster + 1)
    share = tl.cdiv(end - begin, SPLITS)
    begin += split * share
    end = tl.minimum(end, begin + share)
    total = tl.zeros((BD,), tl.float32)
    for first in range(begin, end, BP):
        p = first + tl.arange(0, BP)  # [BP]
        row = tl.load(order + p, mask=p < end, other=0)
        value = tl.load(x + row[:, None] * D + d[None, :], mask=(p[:, None] < end) & (d[None, :] < D), other=0.0)
        total += tl.sum(value.to(tl.float32), 0)
    out = sums + (split * tl.num_programs(0) + cluster) * D + d
    tl.store(out, total, mask=d < D)


TILES = {torch.float32: (64, 64, 32, 4, 3), torch.bfloat16: (128, 64, 64, 4, 3), torch.float16: (128, 64, 64, 4, 3)}
"""dtype: points, centroids and features of a tile, warps, stages."""
AMD_STAGES = 2
SUM = (32, 128, 4)
"""Points and features at a time, warps."""
PROGRAMS = 1024
SPLITS = tuple(1 << power for power in range(7))
"""Programs that may share a cluster's points."""


@on_its_gpu
def assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, N, D), centroids (B, K, D) -> ids (B, N) int32, squared distances (B, N) float32."""
    x, centroids = x.contiguous(), centroids.to(x.dtype).contiguous()
    (batch, points, dim), clusters = x.shape, centroids.shape[1]
    ids = torch.empty(batch, points, dtype=torch.int32, device=x.device)
    distances = torch.empty(batch, points, dtype=torch.float32, device=x.device)
    if ids.numel():
        half = centroids.float().square().sum(-1) / 2
        bn, bk, bd, warps, stages = TILES[x.dtype]
        assign_kernel[(triton.cdiv(points, bn) * batch,)](
            x, centroids, half, ids, distances, points, clusters, dim, BN=bn, BK=bk, BD=bd,
            PRECISION=dot_precision(x.dtype), num_warps=warps, num_stages=AMD_STAGES if torch.version.hip else stages,
            **FUSED,
        )  # fmt: skip
    return ids, distances


@on_its_gpu
def update(x: Tensor, ids: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, N, D), ids (B, N) int32, centroids (B, K, D) -> new centroids (B, K, D), counts (B, K) int32."""
    batch, clusters, dim = centroids.shape
    # points with an id outside 0 to K - 1 come behind all clusters, whose sums leave them out
    flat = ids + clusters * torch.arange(batch, device=ids.device, dtype=torch.int32)[:, None]
    flat = torch.where((ids >= 0) & (ids < clusters), flat, batch * clusters).to(torch.int32).reshape(-1)
    keys, order = flat.sort(stable=True)
    offsets = torch.searchsorted(keys, torch.arange(batch * clusters + 1, device=keys.device, dtype=torch.int32))
    wanted = min(SPLITS[-1], PROGRAMS // max(1, batch * clusters))
    splits = next(count for count in SPLITS if count >= wanted)
    sums = torch.empty(splits, batch * clusters, dim, dtype=torch.float32, device=x.device)
    points, features, warps = SUM
    if sums.numel():
        sum_kernel[(batch * clusters, splits, triton.cdiv(dim, features))](
            x.reshape(-1, dim).contiguous(), order, offsets, sums, dim,
            SPLITS=splits, BP=points, BD=features, num_warps=warps, **FUSED,
        )  # fmt: skip
    return means(sums.sum(0).view(batch, clusters, dim), offsets.diff().view(batch, clusters), centroids)


def configurations(amd: bool = False) -> Iterator[Configuration]:
    """Every configuration that the launchers can choose ("bf16" stands for fp16 too)."""
    for dtype, word in {torch.float32: "fp32", torch.bfloat16: "bf16"}.items():
        bn, bk, bd, warps, stages = TILES[dtype]
        types = {"x": f"*{word}", "centroids": f"*{word}", "half": "*fp32", "ids": "*i32", "distances": "*fp32"}
        types |= {"N": "i32", "K": "i32", "D": "i32"}
        options = {"num_warps": warps, "num_stages": AMD_STAGES if amd else stages}
        for precision in dot_precisions(word, amd=amd):
            constants = {"BN": bn, "BK": bk, "BD": bd, "PRECISION": precision}
            name = f"assign {word}, {precision}"
            yield Configuration(name, assign_kernel, types, constants, ("D",), options, matrix=True)
        types = {"x": f"*{word}", "order": "*i64", "offsets": "*i64", "sums": "*fp32", "D": "i32"}
        points, features, warps = SUM
        for splits in SPLITS:
            constants = {"SPLITS": splits, "BP": points, "BD": features}
            yield Configuration(f"sum {word} in {splits}", sum_kernel, types, constants, ("D",), {"num_warps": warps})
