"""ZipVL (He et al., arXiv 2410.08584): how many keys a layer needs, and which.

    acc_j = sum over query rows of the attention to key j, averaged over heads
    p = the fewest keys whose largest acc sum to tau times the number of rows
    kept: the p keys with the largest acc_j / (rows that can see j)

A few probe rows (recent and random ones) stand for all. No official code could be read; this follows the paper.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels.cumulative import cumulative


class ZipvlScores(NamedTuple):
    """accumulated (N,), normalized (N,) = accumulated / rows that can see the key, rows: number of query rows."""

    accumulated: Tensor
    normalized: Tensor
    rows: int


def key_scores(
    q: Tensor, k: Tensor, *, causal: bool = False, probe_rows: Tensor | None = None, scale: float | None = None
) -> ZipvlScores:
    """q (H, M, D), k (H, N, D); probe_rows (P,): which query rows to look at (all by default)."""
    queries, keys = q.shape[1], k.shape[1]
    rows = torch.arange(queries, device=q.device) if probe_rows is None else probe_rows
    scores = (q[:, rows] @ k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    columns = torch.arange(keys, device=q.device)
    seen = columns <= rows[:, None] + keys - queries if causal else torch.ones_like(scores[0], dtype=torch.bool)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    accumulated = weights.mean(0).sum(0)
    return ZipvlScores(accumulated, accumulated / seen.sum(0).clamp_min(1), len(rows))


def keys_for(scores: ZipvlScores, tau: float) -> tuple[int, Tensor]:
    """(p, all keys in order of falling importance, ties to the earlier one): the first p are kept."""
    held = cumulative(scores.accumulated.sort(descending=True).values)
    count = int((held < tau * scores.rows).sum()) + 1
    return min(count, len(held)), scores.normalized.argsort(descending=True, stable=True)
