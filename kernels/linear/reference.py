"""Linear attentions as matrices of weights: the twins, quadratic in the number of tokens, of the faster paths.

    y_i = sum_j w_ij v_j / (sum_j w_ij + eps)

SLAB (Guo et al., ICML 2024, arXiv 2405.11582): w = relu(q) relu(k)^T.
BASED (Arora et al., arXiv 2402.18668): w = 1 + s + s^2 / 2 with s = <q, k> / sqrt(f), at least 1/2; f channels of q.
Scatterbrain (Chen et al., NeurIPS 2021): w = exp(s) on a sparse support, <phi(q), phi(k)> elsewhere.
"""

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["linear", "relu", "taylor"]
"""Weights <q, k>, <relu(q), relu(k)>, or 1 + s + s^2 / 2."""


def weighted_mean(weights: Tensor, v: Tensor, *, eps: float = 0.0) -> Tensor:
    """weights (..., M, N), v (..., N, V) -> y (..., M, V)."""
    return weights @ v / (weights.sum(-1, keepdim=True) + eps)


def taylor_weights(q: Tensor, k: Tensor, *, causal: bool = False) -> Tensor:
    """q (..., M, f), k (..., N, f) -> the second-order expansion of exp(s), (..., M, N); causal hides keys j > i."""
    s = q @ k.mT * q.shape[-1] ** -0.5
    weights = 1 + s + s.square() / 2
    return weights.tril() if causal else weights


def weights_of(q: Tensor, k: Tensor, *, kind: Kind, causal: bool = False) -> Tensor:
    """q (..., M, C), k (..., N, C) -> (..., M, N); causal hides keys j > i."""
    if kind == "taylor":
        return taylor_weights(q, k, causal=causal)
    weights = torch.relu(q) @ torch.relu(k).mT if kind == "relu" else q @ k.mT
    return weights.tril() if causal else weights


def attend(q: Tensor, k: Tensor, v: Tensor, *, kind: Kind, causal: bool, eps: float) -> tuple[Tensor, Tensor]:
    """y (..., M, V) and z_i = sum_j w_ij + eps, (..., M)."""
    weights = weights_of(q, k, kind=kind, causal=causal)
    z = weights.sum(-1) + eps
    return weights @ v / z.unsqueeze(-1), z


def attend_backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, z: Tensor, *, kind: Kind, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """dv_j = sum_i (w_ij / z_i) dy_i;  dw_ij = <dy_i, v_j - y_i> / z_i;  dq_i = scale sum_j (dw_ij w'(s_ij)) k_j."""
    weights = weights_of(q, k, kind=kind, causal=causal)
    g = dy / z.unsqueeze(-1)
    dw = g @ v.mT - (g * y).sum(-1, keepdim=True)
    dw = dw.tril() if causal else dw
    if kind == "taylor":
        scale = q.shape[-1] ** -0.5
        ds = dw * (1 + q @ k.mT * scale) * scale
        return ds @ k, ds.mT @ q, weights.mT @ g
    if kind == "linear":
        return dw @ k, dw.mT @ q, weights.mT @ g
    return (dw @ k.relu()) * (q > 0), (dw.mT @ q.relu()) * (k > 0), weights.mT @ g


def performer_exponents(x: Tensor, projection: Tensor, *, scale: float) -> Tensor:
    """log sqrt(m) phi(x) = [W x', -W x'] - |x'|^2 / 2 with x' = sqrt(scale) x: x (..., D), W (m / 2, D) -> (..., m).

    Averaged over W with standard normal entries, <phi(q), phi(k)> is exp(scale <q, k>).
    """
    x = x * scale**0.5
    projected = x @ projection.mT
    return torch.cat([projected, -projected], -1) - x.square().sum(-1, keepdim=True) / 2


def scatterbrain_weights(q: Tensor, k: Tensor, projection: Tensor, support: Tensor, *, scale: float) -> Tensor:
    """q (..., M, D), k (..., N, D), support bool (broadcasts to (..., M, N)) -> unnormalised weights (..., M, N)."""
    phi_q, phi_k = (performer_exponents(x, projection, scale=scale).exp() for x in (q, k))
    low_rank = phi_q @ phi_k.mT / (2 * len(projection))
    return torch.where(support, (q @ k.mT * scale).exp(), low_rank)


def band(queries: int, keys: int, window: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """(queries, keys) bool: key j lies -left <= j - i <= right of query i."""
    offset = torch.arange(keys, device=device) - torch.arange(queries, device=device)[:, None]
    return (offset >= -window[0]) & (offset <= window[1])
