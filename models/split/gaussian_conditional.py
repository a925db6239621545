"""The conditional entropy model: a Gaussian for each entry of a latent, whose scale (and mean) a hyperprior predicts.

Ballé et al., arXiv 1802.01436; with means, Minnen et al., arXiv 1809.02736.

    p(v) = Phi((1/2 - |v|) / s) - Phi((-1/2 - |v|) / s),  v = y_hat - mean,  s = max(scale, 0.11)
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.models.split.bounds import lower_bound
from zoo.models.split.entropy_tables import Tables, tables
from zoo.models.split.factorized_prior import LIKELIHOOD_BOUND
from zoo.models.split.range_coder import decode, encode

SCALE_MIN, SCALE_MAX, SCALE_LEVELS = 0.11, 256.0, 64


def scale_table() -> Tensor:
    """(64,) the scales that coding knows, evenly spaced in their logarithm from 0.11 to 256."""
    return torch.linspace(math.log(SCALE_MIN), math.log(SCALE_MAX), SCALE_LEVELS, device="cpu").exp()


class GaussianConditional(nn.Module):
    """Latents (B, C, ...) with scales and means of their shape to what the receiver decodes and its likelihood."""

    def __init__(self, *, tail_mass: float = 1e-9):
        super().__init__()
        self.tail_mass = tail_mass
        self.tables: Tables | None = None

    def forward(self, y: Tensor, scales: Tensor, means: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre = torch.zeros_like(y) if means is None else means
        noisy = y + torch.empty_like(y).uniform_(-0.5, 0.5) if self.training else None
        y_hat = torch.round(y - centre) + centre if noisy is None else noisy
        return y_hat, self.likelihood(y_hat - centre, scales)

    def likelihood(self, values: Tensor, scales: Tensor) -> Tensor:
        """p(v) of values v about their means, at least 1e-9."""
        scales = lower_bound(scales, SCALE_MIN)
        inside = _phi((0.5 - values.abs()) / scales) - _phi((-0.5 - values.abs()) / scales)
        return lower_bound(inside, LIKELIHOOD_BOUND)

    def indexes(self, scales: Tensor) -> Tensor:
        """The entry of `scale_table` to which coding raises each scale."""
        known = scale_table().to(scales)
        return torch.bucketize(scales.contiguous(), known[:-1]).int()

    @torch.no_grad()
    def update(self) -> Tables:
        """Make the integer tables, one row for each scale of `scale_table`."""
        scales = scale_table()
        reach = -float(torch.special.ndtri(torch.tensor(self.tail_mass / 2, dtype=torch.float64)))
        centre = torch.ceil(scales * reach).int()
        distance = (torch.arange(2 * int(centre.max()) + 1)[None] - centre[:, None]).abs().float()
        lower, upper = (_phi((half - distance) / scales[:, None]) for half in (-0.5, 0.5))
        self.tables = tables(upper - lower, 2 * lower[:, 0], 2 * centre + 1, -centre)
        return self.tables

    def compress(self, y: Tensor, scales: Tensor, means: Tensor | None = None) -> list[bytes]:
        """One string of bytes for each sample of y (B, C, ...)."""
        table = self.tables or self.update()
        symbols = torch.round(y if means is None else y - means).int().cpu()
        return [encode(sample, rows, table) for sample, rows in zip(symbols, self.indexes(scales).cpu())]

    def decompress(self, strings: Sequence[bytes], scales: Tensor, means: Tensor | None = None) -> Tensor:
        """y_hat (B, C, ...), given the same scales and means as `compress` had, to the bit."""
        table = self.tables or self.update()
        symbols = torch.stack([decode(data, rows, table) for data, rows in zip(strings, self.indexes(scales).cpu())])
        return symbols.to(scales) + (0 if means is None else means)


def _phi(x: Tensor) -> Tensor:
    """The standard normal distribution function, in the form that stays exact in its lower tail."""
    return 0.5 * torch.erfc(-(2**-0.5) * x)
