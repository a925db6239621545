"""SLAB's simplified linear attention (Guo et al., ICML 2024, arXiv 2405.11582).

o_i = relu(q_i) K / (<relu(q_i), sum_j relu(k_j)> + eps) + depthwise(v)_i,    K = sum_j relu(k_j) v_j^T
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.linear.chunks import by_chunks, by_matrix, divided
from zoo.kernels.linear.op import linear_attention_op, runs_kernel
from zoo.kernels.linear.precision import widened, without_autocast
from zoo.kernels.linear.shapes import check, check_convolution


def linear_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, *, eps: float = 1e-6) -> Tensor:
    """y_i = sum_j <q_i, k_j> v_j / (sum_j <q_i, k_j> + eps) of features that are not negative.

    q (B, H, M, C), k (B, H, N, C), v (B, H, N, V) -> (B, H, M, V), in the dtype of v. causal: keys j <= i, needs M = N.
    Sums are float32 or wider; keys meet values first where that is cheaper, queries meet keys first where tokens are
    few. One fused kernel on a GPU, for up to 64 channels and values.

    Raises ValueError where shapes do not fit.
    """
    check(q, k, v, equal="causal attention" if causal else "")
    if runs_kernel(q, k, v):
        return linear_attention_op(q, k, v, "linear", causal, eps)[0]
    with without_autocast(q):
        wide_q, wide_k, wide_v = widened(q, k, v)
        return _attend(wide_q, wide_k, wide_v, causal, eps).to(v.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, eps: float) -> Tensor:
    queries, channels, keys, values = *q.shape[2:], *v.shape[2:]
    if queries * keys * (channels + values) <= channels * values * (queries + keys):
        return by_matrix(q, k, v, kind="linear", causal=causal, eps=eps)
    if causal:
        return by_chunks(q, k, v, kind="linear", eps=eps)
    moments, summed = k.mT @ v, k.sum(-2, keepdim=True).mT
    if not (q.requires_grad or moments.requires_grad):
        return divided(q @ moments, (q @ summed).add_(eps))
    sums, total = (q @ torch.cat([moments, summed], -1)).split([values, 1], -1)
    return sums / (total + eps)


def simplified_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel: Tensor,
    kernel_bias: Tensor | None = None,
    *,
    grid: tuple[int, int],
    eps: float = 1e-6,
) -> Tensor:
    """Linear attention of relu(q) and relu(k), plus a depthwise convolution of v over the token grid.

    q, k, v (B, H, N, C) with N = rows x columns of `grid`; kernel (C, 1, size, size), odd size, and kernel_bias (C,)
    are shared by the heads. Returns (B, H, N, C). A query without a positive entry gets the convolution alone.

    Raises ValueError where shapes do not fit, or the grid does not hold the tokens.
    """
    check(q, k, v, equal="a convolution over the tokens")
    check_convolution(v, kernel, kernel_bias, grid)
    images = v.flatten(0, 1).mT.unflatten(-1, grid)  # (B H, C, rows, columns)
    local = F.conv2d(images, kernel, kernel_bias, padding=kernel.shape[-1] // 2, groups=v.shape[-1])
    if runs_kernel(q, k, v):
        y, _ = linear_attention_op(q, k, v, "relu", False, eps)
    else:
        y = linear_attention(torch.relu(q), torch.relu(k), v, eps=eps)
    return y + local.flatten(2).mT.unflatten(0, v.shape[:2])
