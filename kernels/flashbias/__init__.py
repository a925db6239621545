"""Attention with an additive bias given by factors, softmax(scale q k^T + phi_q phi_k^T) v.

Wu et al., FlashBias, NeurIPS 2025, arXiv 2505.12044. A bias of rank R costs R more channels instead of a matrix of
M x N: the factors are appended to the channels of q and k. Some biases have exact factors (ALiBi, squared distances); a
fixed matrix has those of its singular value decomposition, with an error that `svd_factors` states.

The released ALiBi example adds slope (i - j), which under a causal mask rewards distant keys; the default here is
ALiBi's own slope (j - i), and `released_sign=True` gives the other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.attention import attention

__all__ = ["alibi_factors", "distance_factors", "factored_bias_attention", "svd_factors", "window_bias"]


def factored_bias_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    phi_q: Tensor,
    phi_k: Tensor,
    causal: bool = False,
    scale: float | None = None,
    *,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """q (B, H, M, D), k, v (B, K, N, D), phi_q (H, M, R) or (B, H, M, R), phi_k (K, N, R) likewise; all are
    differentiable.

    The factors take the dtype of q: positions are exact up to 2048 in float16 and 256 in bfloat16, so long sequences
    with position factors want float32 or a dense bias.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    wide_q, wide_k = (_append(x, phi) for x, phi in ((q * scale, phi_q), (k, phi_k)))
    return attention(wide_q, wide_k, v, causal=causal, scale=1.0, return_lse=return_lse)


def _append(x: Tensor, phi: Tensor) -> Tensor:
    """[x | phi], padded with zeros to a multiple of 8 channels, as the matrix units read them."""
    phi = phi.to(x.dtype).expand(*x.shape[:3], phi.shape[-1])
    return F.pad(torch.cat([x, phi], dim=-1), (0, -(x.shape[-1] + phi.shape[-1]) % 8))


def alibi_factors(
    slopes: Tensor, queries: int, keys: int | None = None, *, released_sign: bool = False
) -> tuple[Tensor, Tensor]:
    """ALiBi's bias slope (j - i): slopes (H,) -> phi_q (H, M, 2), phi_k (H, N, 2), exact."""
    keys = queries if keys is None else keys
    i, j = (torch.arange(n, dtype=slopes.dtype, device=slopes.device) for n in (queries, keys))
    sign = 1 if released_sign else -1
    phi_q = sign * slopes[:, None, None] * torch.stack([torch.ones_like(i), i], -1)
    phi_k = torch.stack([-j, torch.ones_like(j)], -1).expand(len(slopes), -1, -1)
    return phi_q, phi_k


def distance_factors(x: Tensor, y: Tensor | None = None, *, per_axis: bool = False) -> tuple[Tensor, Tensor]:
    """|x_i - y_j|^2 of positions x (M, c), y (N, c): rank c + 2, or 3 c axis by axis; exact.

    [|x|^2, 1, -2 x] and [1, |y|^2, y]. Multiply phi_q by -alpha for the bias -alpha |x_i - y_j|^2.
    """
    y = x if y is None else y
    if per_axis:
        parts = [distance_factors(x[:, a : a + 1], y[:, a : a + 1]) for a in range(x.shape[1])]
        return torch.cat([part[0] for part in parts], -1), torch.cat([part[1] for part in parts], -1)
    square_x, square_y = ((z * z).sum(-1, keepdim=True) for z in (x, y))
    phi_q = torch.cat([square_x, torch.ones_like(square_x), -2 * x], -1)
    return phi_q, torch.cat([torch.ones_like(square_y), square_y, y], -1)


def svd_factors(bias: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best factors of `rank` of a fixed bias (H, M, N): phi_q (H, M, R), phi_k (H, N, R), bound (H,).

    bias = U S V^T, phi_q = U_R sqrt(S_R), phi_k = V_R sqrt(S_R). With eps the largest absolute error of the bias, an
    output differs by at most max |v| bound, bound = exp(2 eps) - 1. (Energy is no such criterion: a constant offset
    carries most of it and changes nothing.)
    """
    u, s, vh = torch.linalg.svd(bias.double(), full_matrices=False)
    root = s[:, None, :rank].sqrt()
    phi_q, phi_k = u[..., :rank] * root, vh.mT[..., :rank] * root
    eps = (phi_q @ phi_k.mT - bias.double()).abs().amax((1, 2))
    return phi_q.to(bias.dtype), phi_k.to(bias.dtype), torch.expm1(2 * eps)


def window_bias(table: Tensor, window: int) -> Tensor:
    """Swin's bias as a gather: table ((2 w - 1)^2, H) -> (H, w^2, w^2), entry (dy + w - 1)(2 w - 1) + dx + w - 1."""
    if len(table) != (2 * window - 1) ** 2:
        raise ValueError(f"a window of {window} needs a table of {(2 * window - 1) ** 2} rows, not {len(table)}")
    y, x = torch.meshgrid(*[torch.arange(window, device=table.device)] * 2, indexing="ij")
    dy, dx = (z.flatten()[:, None] - z.flatten() + window - 1 for z in (y, x))
    return table[dy * (2 * window - 1) + dx].permute(2, 0, 1)
