"""Scatterbrain: exact attention near a token, Performer's random features elsewhere (Chen et al., NeurIPS 2021).

    w_ij = exp(s_ij) in a window, <phi(q_i), phi(k_j)> outside;  y_i = sum_j w_ij v_j / sum_j w_ij
    sum_j w_ij v_j = phi(q_i) sum_j phi(k_j) v_j^T + sum_{j in window} (exp(s_ij) - <phi(q_i), phi(k_j)>) v_j

so nothing of size N x N is formed. Features are kept as phi = prime exp(log_scale) with the largest prime 1, and a row
is divided by its largest term before anything is exponentiated, so large scores do not overflow.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.linear.precision import widened, without_autocast
from zoo.kernels.linear.reference import performer_exponents
from zoo.kernels.linear.shapes import check

BLOCK = 64
"""Queries that share one stretch of keys in the windowed part."""


class PerformerFeatures(NamedTuple):
    """phi(x) = prime exp(log_scale): prime (B, H, N, m), log_scale (B, H, N, 1) or (B, H, 1, 1)."""

    prime: Tensor
    log_scale: Tensor


def performer_features(x: Tensor, projection: Tensor, *, scale: float, per_row: bool) -> PerformerFeatures:
    """exp([W x', -W x'] - |x'|^2 / 2) / sqrt(m), x' = sqrt(scale) x, of x (B, H, N, D) and W (m / 2, D).

    per_row: one scale for each row (queries), else one for each head (keys, which are summed).
    """
    exponents = performer_exponents(x, projection, scale=scale)
    largest = exponents.detach().amax((-1,) if per_row else (-2, -1), keepdim=True)
    return PerformerFeatures((exponents - largest).exp(), largest - math.log(exponents.shape[-1]) / 2)


def scatterbrain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    projection: Tensor,
    *,
    window: tuple[int, int],
    scale: float | None = None,
) -> Tensor:
    """q, k (B, H, N, D), v (B, H, N, V), projection (m / 2, D) with standard normal entries -> (B, H, N, V).

    window (left, right): query i meets key j exactly where -left <= j - i <= right; (0, -1), which no key satisfies, is
    Performer. scale: D ** -0.5 by default.

    Raises ValueError where shapes do not fit, or the window is negative otherwise.
    """
    check(q, k, v, equal="scatterbrain")
    if min(window) < 0 and window != (0, -1):
        raise ValueError(f"window (left, right) must not be negative, got {window}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    window = (min(window[0], q.shape[2]), min(window[1], q.shape[2]))
    with without_autocast(q):
        q_wide, k_wide, v_wide, projection = widened(q, k, v, projection)
        if not q.shape[2]:
            return (q_wide @ k_wide.mT @ v_wide).to(v.dtype)
        phi_q = performer_features(q_wide, projection, scale=scale, per_row=True)
        phi_k = performer_features(k_wide, projection, scale=scale, per_row=False)
        v_one = torch.cat([v_wide, torch.ones_like(v_wide[..., :1])], -1)
        k_near, phi_near, v_near = (_near(x, window) for x in (k_wide, phi_k.prime, v_one))
        inside = _inside(q.shape[2], window, q.device)
        scores = (_blocks(q_wide) @ k_near.mT * scale).masked_fill(~inside, -torch.inf)
        log_rank = _blocks(phi_q.log_scale) + phi_k.log_scale.unsqueeze(2)
        top = torch.maximum(scores.detach().amax(-1, keepdim=True), log_rank)
        rank = (log_rank - top).exp()
        low_rank = (_blocks(phi_q.prime) @ phi_near.mT).masked_fill(~inside, 0.0)
        everywhere = _blocks(phi_q.prime @ (phi_k.prime.mT @ v_one))
        sums = rank * everywhere + ((scores - top).exp() - rank * low_rank) @ v_near
        y = sums[..., :-1] / sums[..., -1:]
        return y.flatten(2, 3)[:, :, : q.shape[2]].to(v.dtype)


def _blocks(x: Tensor) -> Tensor:
    """(B, H, N, C) -> (B, H, blocks, BLOCK, C), the last one filled with copies of the last row."""
    missing = -x.shape[2] % BLOCK
    return torch.cat([x, x[:, :, -1:].expand(-1, -1, missing, -1)], 2).unflatten(2, (-1, BLOCK))


def _near(x: Tensor, window: tuple[int, int]) -> Tensor:
    """The rows that a block's window reaches: (B, H, N, C) -> (B, H, blocks, left + BLOCK + right, C)."""
    padded = F.pad(x, (0, 0, window[0], window[1] + -x.shape[2] % BLOCK))
    return padded.unfold(2, window[0] + BLOCK + window[1], BLOCK).mT


def _inside(tokens: int, window: tuple[int, int], device: torch.device) -> Tensor:
    """(blocks, BLOCK, left + BLOCK + right) bool: the row exists and lies in the query's window."""
    starts = torch.arange(0, tokens, BLOCK, device=device)[:, None, None]
    row = torch.arange(BLOCK, device=device)[:, None]
    column = torch.arange(window[0] + BLOCK + window[1], device=device) - window[0]
    near = (column - row >= -window[0]) & (column - row <= window[1])
    return near & (starts + column >= 0) & (starts + column < tokens)
