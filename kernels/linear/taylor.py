"""BASED's linear attention: exp(s) by its Taylor polynomial (Arora et al., arXiv 2402.18668).

    w_ij = 1 + s + s^2 / 2 = <phi(q_i), phi(k_j)>,    s = <q_i, k_j> / sqrt(f)
    phi(x) = [1, x / f^(1/4), vec(x x^T) / sqrt(2 f)]

The paper alternates layers of it with layers of exact attention in a window (`attention(..., window=(63, 0))`).
"""

import torch
from torch import Tensor

from zoo.kernels.linear.chunks import by_chunks, taylor_features
from zoo.kernels.linear.op import linear_attention_op, runs_kernel
from zoo.kernels.linear.precision import accumulated
from zoo.kernels.linear.reference import taylor_weights, weighted_mean


def taylor_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, *, eps: float = 1e-12) -> Tensor:
    """y_i = sum_j w_ij v_j / (sum_j w_ij + eps): q (B, H, M, f), k (B, H, N, f), v (B, H, N, V) -> (B, H, M, V).

    causal: keys j <= i, needs M = N. Few tokens take the matrix of weights, many the state phi(k)^T [v, 1], whichever
    needs fewer multiplications; sums are float32 or wider, the result has the dtype of v. One fused kernel on a GPU,
    for up to 64 channels and values.

    Raises ValueError for a causal call with other queries than keys.
    """
    if causal and q.shape[2] != k.shape[2]:
        raise ValueError(f"causal attention needs as many queries as keys, not {q.shape[2]} and {k.shape[2]}")
    if runs_kernel(q, k, v):
        return linear_attention_op(q, k, v, "taylor", causal, eps)[0]
    with accumulated(q, k, v) as (wide_q, wide_k, wide_v):
        if _matrix_is_cheaper(q.shape[2], k.shape[2], k.shape[3], v.shape[-1]):
            return weighted_mean(taylor_weights(wide_q, wide_k, causal=causal), wide_v, eps=eps).to(v.dtype)
        with_one = torch.cat([wide_v, torch.ones_like(wide_v[..., :1])], -1)
        sums = by_chunks(wide_q, wide_k, with_one, kind="taylor") if causal else _by_state(wide_q, wide_k, with_one)
        return (sums[..., :-1] / (sums[..., -1:] + eps)).to(v.dtype)


def _matrix_is_cheaper(queries: int, keys: int, f: int, values: int) -> bool:
    features = 1 + f + f * (f + 1) // 2
    return queries * keys * (f + values) <= (queries + keys) * features * (values + 1)


def _by_state(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return taylor_features(q, folded=True) @ (taylor_features(k, folded=True).mT @ v)
