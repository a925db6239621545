"""HiLo attention: some heads see fine detail inside small windows, the others a pooled map of the whole image.

Pan, Cai, Zhuang, "Fast Vision Transformers with HiLo Attention", NeurIPS 2022, arXiv 2205.13213.

    Hi heads: softmax(q k^T / sqrt(d)) v inside each window of s x s positions
    Lo heads: every position asks, the s x s average-pooled map answers: N queries, N / s^2 keys
    output:   [Hi, Lo] along the channels, each with its own projection
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.attention import attention


class HiLo(nn.Module):
    """(B, H, W, C) to (B, H, W, C); a map that windows do not fill is padded with zeros below and to the right.

    alpha: share of the heads that are Lo, rounded down. window_size 1 is plain attention (all heads are Lo, unpooled).
    The layers are named as in the authors' code: h_qkv, h_proj, l_q, l_kv, l_proj.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: int = 2,
        alpha: float = 0.9,
        qkv_bias: bool = True,
        scale: float | None = None,
    ):
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"HiLo: {num_heads} heads do not divide {dim} channels")
        if not 0 <= alpha <= 1:
            raise ValueError(f"HiLo: alpha is {alpha}, a share of the heads between 0 and 1")
        self.dim, self.window_size = dim, window_size
        self.head_dim = dim // num_heads
        self.scale = scale
        # as a fraction, since 0.7 times a number of heads may fall just below a whole number
        self.lo_heads = num_heads if window_size == 1 else int(Fraction(str(alpha)) * num_heads)
        self.hi_heads = num_heads - self.lo_heads
        lo, hi = self.lo_heads * self.head_dim, self.hi_heads * self.head_dim
        if hi:
            self.h_qkv = nn.Linear(dim, 3 * hi, bias=qkv_bias)
            self.h_proj = nn.Linear(hi, hi)
        if lo:
            self.l_q = nn.Linear(dim, lo, bias=qkv_bias)
            self.l_kv = nn.Linear(dim, 2 * lo, bias=qkv_bias)
            self.l_proj = nn.Linear(lo, lo)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        below, right = -height % self.window_size, -width % self.window_size
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        parts = []
        if self.hi_heads:
            parts.append(self.hi(x))
        if self.lo_heads:
            parts.append(self.lo(x))
        return torch.cat(parts, dim=-1)[:, :height, :width]

    def hi(self, x: Tensor) -> Tensor:
        """Attention inside windows: (B, H, W, C) to (B, H, W, hi channels)."""
        size = self.window_size
        rows, columns = x.shape[1] // size, x.shape[2] // size
        windows = (
            x.unflatten(2, (columns, size)).unflatten(1, (rows, size)).transpose(2, 3)
        )  # B, rows, columns, s, s, C
        qkv = self.h_qkv(windows.flatten(3, 4).flatten(0, 2))
        q, k, v = qkv.unflatten(-1, (3, self.hi_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        y = self.h_proj(self._attend(q, k, v))
        y = y.unflatten(1, (size, size)).unflatten(0, (-1, rows, columns)).transpose(2, 3)
        return y.flatten(3, 4).flatten(1, 2)

    def lo(self, x: Tensor) -> Tensor:
        """Attention of every position to the pooled map: (B, H, W, C) to (B, H, W, lo channels)."""
        q = self.l_q(x).flatten(1, 2).unflatten(-1, (self.lo_heads, self.head_dim)).transpose(1, 2)
        pooled = x
        if self.window_size > 1:
            pooled = F.avg_pool2d(x.permute(0, 3, 1, 2), self.window_size).permute(0, 2, 3, 1)
        kv = self.l_kv(pooled.flatten(1, 2))
        k, v = kv.unflatten(-1, (2, self.lo_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        return self.l_proj(self._attend(q, k, v)).unflatten(1, (x.shape[1], x.shape[2]))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (B, heads, length, D) to (B, length, heads * D)."""
        mixed = attention(q, k, v, scale=self.scale)
        assert isinstance(mixed, Tensor)
        return mixed.transpose(1, 2).flatten(2)

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of one image, padding included, by the authors' formula.

        Hi: N C 3h + (N / s^2) 2 s^4 h + N h^2.  Lo: N C l + 2 (N / s^2) C l + 2 N (N / s^2) l + N l^2.

        >>> HiLo(384, num_heads=12, alpha=0.5).macs(14, 14)
        83467776
        """
        size, dim = self.window_size, self.dim
        pooled = -(-height // size) * -(-width // size)
        tokens = pooled * size**2
        hi, lo = self.hi_heads * self.head_dim, self.lo_heads * self.head_dim
        inside = tokens * dim * 3 * hi + pooled * 2 * size**4 * hi + tokens * hi**2
        across = tokens * dim * lo + 2 * pooled * dim * lo + 2 * tokens * pooled * lo + tokens * lo**2
        return inside + across
