"""BASED's linear attention: exp(s) by its Taylor polynomial (Arora et al., arXiv 2402.18668).

    w_ij = 1 + s + s^2 / 2 = <phi(q_i), phi(k_j)>,    s = <q_i, k_j> / sqrt(f)
    phi(x) = [1, x / f^(1/4), vec(x x^T) / sqrt(2 f)]

The paper alternates layers of it with layers of exact attention in a window (`attention(..., window=(63, 0))`).
"""

from torch import Tensor

from zoo.kernels.linear.chunks import by_chunks, by_matrix, divided, taylor_features
from zoo.kernels.linear.op import linear_attention_op, runs_kernel
from zoo.kernels.linear.precision import widened, without_autocast
from zoo.kernels.linear.shapes import check


def taylor_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, *, eps: float = 1e-12) -> Tensor:
    """y_i = sum_j w_ij v_j / (sum_j w_ij + eps): q (B, H, M, f), k (B, H, N, f), v (B, H, N, V) -> (B, H, M, V).

    causal: keys j <= i, needs M = N. Few tokens take the matrix of weights, many the state phi(k)^T [v, 1], whichever
    needs fewer multiplications; sums are float32 or wider, the result has the dtype of v. One fused kernel on a GPU,
    for up to 64 channels and values.

    Raises ValueError where shapes do not fit.
    """
    check(q, k, v, equal="causal attention" if causal else "")
    if runs_kernel(q, k, v):
        return linear_attention_op(q, k, v, "taylor", causal, eps)[0]
    with without_autocast(q):
        wide_q, wide_k, wide_v = widened(q, k, v)
        return _attend(wide_q, wide_k, wide_v, causal, eps).to(v.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, eps: float) -> Tensor:
    if _matrix_is_cheaper(q.shape[2], k.shape[2], k.shape[3], v.shape[3]):
        return by_matrix(q, k, v, kind="taylor", causal=causal, eps=eps)
    if causal:
        return by_chunks(q, k, v, kind="taylor", eps=eps)
    phi_q, phi_k = taylor_features(q, folded=True), taylor_features(k, folded=True)
    return divided(phi_q @ (phi_k.mT @ v), (phi_q @ phi_k.sum(-2, keepdim=True).mT).add_(eps))


def _matrix_is_cheaper(queries: int, keys: int, f: int, values: int) -> bool:
    features = 1 + f + f * (f + 1) // 2
    return queries * keys * (f + values) <= (queries + keys) * features * (values + 1)
