"""Linear attention on PyTorch's operations where queries meet keys: weights within a chunk, a state for earlier ones.

A chunk's weights are made in place, since fresh memory costs more than the arithmetic.
"""

import torch
from torch import Tensor

from zoo.kernels.linear.reference import Kind

CHUNK = 128


def taylor_features(x: Tensor, *, folded: bool = False) -> Tensor:
    """phi: (..., f) -> (..., 1 + f + f^2). folded: x_a x_b and x_b x_a in one feature, 1 + f + f (f + 1) / 2; the same
    inner products."""
    f = x.shape[-1]
    square = x.unsqueeze(-1) * x.unsqueeze(-2) * (2 * f) ** -0.5
    if folded:
        rows, columns = torch.triu_indices(f, f, device=x.device)
        square = square[..., rows, columns] * x.new_full(rows.shape, 2**0.5).masked_fill(rows == columns, 1.0)
    else:
        square = square.flatten(-2)
    return torch.cat([torch.ones_like(x[..., :1]), x * f**-0.25, square], -1)


def by_chunks(q: Tensor, k: Tensor, v: Tensor, *, kind: Kind, eps: float) -> Tensor:
    """sum_{j <= i} w_ij v_j / (sum_{j <= i} w_ij + eps): q, k (B, H, N, C), v (B, H, N, V) -> (B, H, N, V)."""
    if k.shape[2] <= CHUNK:
        return by_matrix(q, k, v, kind=kind, causal=True, eps=eps)
    done: list[Tensor] = []
    state: list[Tensor] = []  # sums of phi(k_j) v_j^T and of phi(k_j) over earlier chunks
    chunks = list(zip(*(x.split(CHUNK, dim=2) for x in (q, k, v))))
    for q_chunk, k_chunk, v_chunk in chunks:
        sums, total = _meet(q_chunk, k_chunk, v_chunk, kind, causal=True)
        if state:
            phi = _features(q_chunk, kind)
            sums, total = sums.add_(phi @ state[0]), total.add_(phi @ state[1])
        done.append(divided(sums, total.add_(eps)))
        if len(done) < len(chunks):
            phi = _features(k_chunk, kind).mT
            update = [phi @ v_chunk, phi.sum(-1, keepdim=True)]
            state = [old + new for old, new in zip(state, update)] if state else update
    return torch.cat(done, 2)


def by_matrix(q: Tensor, k: Tensor, v: Tensor, *, kind: Kind, causal: bool, eps: float) -> Tensor:
    """The same for few tokens, and without a mask: all keys in one chunk, q (B, H, M, C) -> (B, H, M, V)."""
    sums, total = _meet(q, k, v, kind, causal)
    return divided(sums, total.add_(eps))


def divided(sums: Tensor, total: Tensor) -> Tensor:
    """sums / total, in place unless a backward needs what that overwrites."""
    return sums / total if sums.requires_grad else sums.div_(total)


def _meet(q: Tensor, k: Tensor, v: Tensor, kind: Kind, causal: bool) -> tuple[Tensor, Tensor]:
    """sum_j w_ij v_j and sum_j w_ij; of the polynomial w = ((1 + s) / sqrt(2))^2 + 1/2."""
    if kind == "taylor":
        weights = ((q * (2 * q.shape[-1]) ** -0.5) @ k.mT).add_(0.5**0.5).pow_(2).add_(0.5)
    else:
        weights = q @ k.mT
    if causal:
        weights = weights.tril()
    return weights @ v, weights.sum(-1, keepdim=True)


def _features(x: Tensor, kind: Kind) -> Tensor:
    return taylor_features(x, folded=True) if kind == "taylor" else x
