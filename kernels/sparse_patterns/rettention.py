"""Re-ttention (Chen et al., NeurIPS 2025): sparse attention that keeps the statistics of the dense one.

At a refresh both are computed, and kept are the share of the softmax that the visible keys hold,
rho_i = sum_visible exp(s) / sum_all exp(s) = exp(lse_visible - lse_all), and the rest of the output. Until the next
refresh sparse attention is scaled by rho and the rest is added. (The released code caches the rest after the output
projection, which is linear: the same up to that projection.)
"""

from typing import NamedTuple

from torch import Tensor

from zoo.kernels.attention import attention


class Statistics(NamedTuple):
    """ratio (B, H, M, 1): rho. rest (B, H, M, D): dense minus reshaped sparse output. dense (B, H, M, D)."""

    ratio: Tensor
    rest: Tensor
    dense: Tensor


def statistics(
    q: Tensor, k: Tensor, v: Tensor, block_mask: Tensor, block_size: tuple[int, int], *, scale: float | None = None
) -> Statistics:
    """What a refresh keeps; the reshaped sparse output plus `rest` is the dense output at this step exactly."""
    dense, lse_all = attention(q, k, v, scale=scale, return_lse=True)
    sparse, lse_visible = attention(q, k, v, scale=scale, return_lse=True, block_mask=block_mask, block_size=block_size)
    ratio = (lse_visible - lse_all).exp().unsqueeze(-1)
    return Statistics(ratio, dense - (sparse * ratio).to(dense.dtype), dense)


def reshaped_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block_mask: Tensor,
    block_size: tuple[int, int],
    kept: Statistics,
    *,
    scale: float | None = None,
    steps: int = 0,
    growth: float = 0.04,
) -> Tensor:
    """rho * sparse attention + rest, `steps` after the refresh; rho grows by `growth` a step, as released."""
    sparse = attention(q, k, v, scale=scale, block_mask=block_mask, block_size=block_size)
    return (sparse * (kept.ratio + growth * steps)).to(kept.rest.dtype) + kept.rest
