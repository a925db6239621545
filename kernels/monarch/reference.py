"""Products with Monarch matrices, as plain PyTorch (Fu et al., Monarch Mixer, NeurIPS 2023, arXiv 2310.12109).

A Monarch matrix is two block-diagonal matrices with a permutation between them: k blocks q x p, then l blocks s x r.
"""

import torch
from torch import Tensor


def block_diagonal(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, k p), weight (k, q, p) -> (B, k q): block k sees its own p inputs."""
    blocks, _, inner = weight.shape
    return torch.einsum("kqp,bkp->bkq", weight, x.reshape(-1, blocks, inner)).flatten(1)


def monarch(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """y[b, s l' + l] = sum_r w2[l,s,r] h[b, r l' + l] with h = block_diagonal(x, w1), l' = number of blocks of w2."""
    blocks, _, inner = w2.shape
    hidden = block_diagonal(x, w1).reshape(-1, inner, blocks)
    return torch.einsum("lsr,brl->bsl", w2, hidden).flatten(1)


def dense(w1: Tensor, w2: Tensor) -> Tensor:
    """The Monarch matrix itself (outputs, inputs)."""
    return monarch(torch.eye(w1.shape[0] * w1.shape[2], dtype=w1.dtype, device=w1.device), w1, w2).t()


def project(matrix: Tensor, rank: int = 1) -> tuple[Tensor, Tensor]:
    """The Monarch matrix nearest to a square `matrix` (n, n) in the Frobenius norm, with n = s p as square as possible.

    The entries between input block k and outputs l, l + p, ... form an (s, p) matrix that a Monarch matrix holds with
    rank `rank`: its truncated SVD is the optimum. Returns w1 (s, p rank, p) and w2 (p, s, s rank).
    """
    n = matrix.shape[0]
    inner = next(size for size in range(int(n**0.5), 0, -1) if n % size == 0)
    outer = n // inner
    blocks = matrix.reshape(outer, inner, outer, inner).permute(1, 2, 0, 3)  # [l, k, s, p]
    u, scale, v = torch.linalg.svd(blocks, full_matrices=False)
    root = scale[..., :rank].sqrt()
    left = u[..., :rank] * root[..., None, :]  # [l, k, s, rank]
    right = v[..., :rank, :] * root[..., None]  # [l, k, rank, p]
    w1 = right.permute(1, 2, 0, 3).reshape(outer, rank * inner, inner)
    w2 = left.permute(0, 2, 1, 3).reshape(inner, outer, outer * rank)
    return w1.contiguous(), w2.contiguous()
