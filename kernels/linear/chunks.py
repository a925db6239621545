"""Causal linear attention on PyTorch's operations: weights within a chunk, a state of features for earlier ones."""

import torch
from torch import Tensor

from zoo.kernels.linear.reference import Kind, weights_of

CHUNK = 64


def taylor_features(x: Tensor, *, folded: bool = False) -> Tensor:
    """phi: (..., f) -> (..., 1 + f + f^2). folded: x_a x_b and x_b x_a in one feature, 1 + f + f (f + 1) / 2; the same
    inner products."""
    f = x.shape[-1]
    square = x.unsqueeze(-1) * x.unsqueeze(-2) * (2 * f) ** -0.5
    if folded:
        rows, columns = torch.triu_indices(f, f, device=x.device)
        square = square[..., rows, columns] * torch.where(rows == columns, 1.0, 2**0.5).to(x.dtype)
    else:
        square = square.flatten(-2)
    return torch.cat([torch.ones_like(x[..., :1]), x * f**-0.25, square], -1)


def by_chunks(q: Tensor, k: Tensor, v: Tensor, *, kind: Kind) -> Tensor:
    """sum_{j <= i} w_ij v_j: q, k (B, H, N, C), v (B, H, N, V) -> (B, H, N, V)."""
    done = []
    state = None
    for q_chunk, k_chunk, v_chunk in zip(*(x.split(CHUNK, dim=2) for x in (q, k, v))):
        sums = weights_of(q_chunk, k_chunk, kind=kind, causal=True) @ v_chunk
        if state is not None:
            sums = sums + _features(q_chunk, kind) @ state
        update = _features(k_chunk, kind).mT @ v_chunk
        state = update if state is None else state + update
        done.append(sums)
    return torch.cat(done, 2)


def _features(x: Tensor, kind: Kind) -> Tensor:
    if kind == "taylor":
        return taylor_features(x, folded=True)
    return torch.relu(x) if kind == "relu" else x
