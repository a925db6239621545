"""Linear layers with fewer parameters: block-diagonal ones, and Monarch ones of two block-diagonal factors.

Fu et al., "Monarch Mixer: A Simple Sub-Quadratic GEMM-Based Architecture", NeurIPS 2023, arXiv 2310.12109; Dao et
al., "Monarch: Expressive Structured Matrices", ICML 2022, arXiv 2204.00595. With b blocks a Monarch layer of n features
has 2 n^2 / b parameters, a block-diagonal one n^2 / b. Reference code: HazyResearch/fly and HazyResearch/m2, both
Apache-2.0; what M2's released MLPs call Monarch is block-diagonal alone.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.monarch import block_diagonal, dense, monarch


class StructuredLinear(nn.Module):
    """What both layers share: inputs padded with zeros and outputs cut, so that any sizes divide into blocks."""

    def __init__(self, in_features: int, out_features: int, *, blocks: int = 4, bias: bool = True) -> None:
        super().__init__()
        if not 1 <= blocks <= min(in_features, out_features):
            raise ValueError(f"blocks={blocks}: choose 1 to {min(in_features, out_features)}, the smaller side")
        self.in_features, self.out_features, self.blocks = in_features, out_features, blocks
        self.block_in, self.block_out = math.ceil(in_features / blocks), math.ceil(out_features / blocks)
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def reset_parameters(self) -> None:
        """Each factor uniform within 1 / sqrt(its inputs per block), the bias within 1 / sqrt(out_features)."""
        for name, parameter in self.named_parameters(recurse=False):
            bound = (self.out_features if name == "bias" else parameter.shape[-1]) ** -0.5
            nn.init.uniform_(parameter, -bound, bound)

    def product(self, x: Tensor) -> Tensor:
        """(..., blocks block_in) -> (..., blocks block_out)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        x = F.pad(x, (0, self.blocks * self.block_in - self.in_features))
        y = self.product(x)[..., : self.out_features]
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, blocks={self.blocks}, bias={self.bias is not None}"


class BlockdiagLinear(StructuredLinear):
    """y = B x + bias with one block-diagonal B: block k of the outputs sees block k of the inputs.

    >>> BlockdiagLinear(768, 3072, blocks=4)(torch.zeros(2, 196, 768)).shape
    torch.Size([2, 196, 3072])
    """

    def __init__(self, in_features: int, out_features: int, *, blocks: int = 4, bias: bool = True) -> None:
        super().__init__(in_features, out_features, blocks=blocks, bias=bias)
        self.weight = nn.Parameter(torch.empty(blocks, self.block_out, self.block_in))
        self.reset_parameters()

    def product(self, x: Tensor) -> Tensor:
        rows = block_diagonal(x.reshape(-1, x.shape[-1]), self.weight.to(x.dtype))
        return rows.reshape(*x.shape[:-1], rows.shape[-1])


class MonarchLinear(StructuredLinear):
    """y = M x + bias with a Monarch matrix M, two block-diagonal factors with a permutation between them.

    The square factor stands on the smaller side: blkdiag1 (b, i, i) and blkdiag2 (b, o, i) where the blocks widen
    (i < o), else blkdiag1 (b, o, i) and blkdiag2 (b, o, o).

    >>> MonarchLinear(768, 3072, blocks=4)(torch.zeros(2, 196, 768)).shape
    torch.Size([2, 196, 3072])
    """

    def __init__(self, in_features: int, out_features: int, *, blocks: int = 4, bias: bool = True) -> None:
        super().__init__(in_features, out_features, blocks=blocks, bias=bias)
        middle = min(self.block_in, self.block_out)
        self.blkdiag1 = nn.Parameter(torch.empty(blocks, middle, self.block_in))
        self.blkdiag2 = nn.Parameter(torch.empty(blocks, self.block_out, middle))
        self.reset_parameters()

    def product(self, x: Tensor) -> Tensor:
        return monarch(x, self.blkdiag1, self.blkdiag2)

    def dense_weight(self) -> Tensor:
        """The matrix M itself, (out_features, in_features)."""
        return dense(self.blkdiag1, self.blkdiag2)[: self.out_features, : self.in_features]
