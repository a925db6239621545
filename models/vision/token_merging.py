"""Deformable token merging: each 2x2 patch becomes one token, sampled where the network asks for it.

Pan, Zhuang, He, Liu, Cai, "Less is More: Pay Less Attention in Vision Transformers", AAAI 2022, arXiv 2105.14217, as
used by LITv2 (arXiv 2205.13213); the operator is deformable convolution, arXiv 1703.06211.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def deformable_conv(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Deformable convolution whose kernel k x k equals its stride, as bilinear sampling and a 1x1 convolution.

    x (B, C, H, W), offset (B, 2 k^2, H // k, W // k) with (dy, dx) for each tap, taps by rows, weight (O, C, k, k);
    gives (B, O, H // k, W // k). The result is that of `torchvision.ops.deform_conv2d`, in operations that export
    everywhere (ONNX has DeformConv from opset 19 only, and torchvision's operator no converter).
    """
    size, (height, width) = weight.shape[2], x.shape[2:]
    rows, columns = height // size, width // size
    offset = offset.float().unflatten(1, (size, size, 2))  # B, ky, kx, (dy, dx), rows, columns
    steps = torch.arange(size, device=x.device)
    down = size * torch.arange(rows, device=x.device)[:, None] + steps[:, None, None, None]
    along = size * torch.arange(columns, device=x.device) + steps[:, None, None]
    y, across = offset[:, :, :, 0] + down, offset[:, :, :, 1] + along
    grid = torch.stack([(2 * across + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    sampled = F.grid_sample(x, grid.flatten(1, 3).to(x.dtype), align_corners=False)  # B, C, taps * rows, columns
    taps = sampled.unflatten(2, (size**2, rows)).flatten(1, 2)
    return F.conv2d(taps, weight.flatten(1)[:, :, None, None], bias)


class DeformableTokenMerging(nn.Module):
    """(B, H, W, C) to (B, H // 2, W // 2, 2 C): offsets, deformable 2x2 convolution, BatchNorm, GELU.

    With zero offsets, as they begin, it is an ordinary 2x2 convolution of stride 2.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.offset = nn.Conv2d(dim, 8, 2, stride=2)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        convolution = nn.Conv2d(dim, 2 * dim, 2)
        self.weight, self.bias = convolution.weight, convolution.bias
        self.norm = nn.BatchNorm2d(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        merged = deformable_conv(x, self.offset(x), self.weight, self.bias)
        return F.gelu(self.norm(merged)).permute(0, 2, 3, 1)
