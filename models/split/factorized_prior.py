"""The factorised entropy model: one learned density for each channel of a latent.

Ballé et al., "Variational Image Compression with a Scale Hyperprior", arXiv 1802.01436, appendix 6.1.

    logits(v): four times softplus(M) v + a, then x + tanh(f) tanh(x); and a fifth affine map
    p(v) = sigmoid(logits(v + 1/2)) - sigmoid(logits(v - 1/2))
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.split.bounds import lower_bound
from zoo.models.split.entropy_tables import Tables, tables
from zoo.models.split.range_coder import decode, encode

LIKELIHOOD_BOUND = 1e-9


class FactorizedPrior(nn.Module):
    """Latents (B, C, ...) to what the receiver decodes and the likelihood of each entry, in (0, 1].

    Training adds uniform noise in place of rounding; evaluation rounds around each channel's median. `aux_loss` moves
    the quantiles to where the density has its tails; they bound the tables that `update` makes for `compress`.
    """

    def __init__(
        self, channels: int, *, filters: Sequence[int] = (3, 3, 3, 3), init_scale: float = 10, tail_mass: float = 1e-9
    ):
        super().__init__()
        widths = (1, *filters, 1)
        scale = init_scale ** (1 / (len(filters) + 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            start = math.log(math.expm1(1 / scale / outputs))
            self.matrices.append(nn.Parameter(torch.full((channels, outputs, inputs), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, outputs, 1) - 0.5))
            if len(self.biases) <= len(filters):
                self.factors.append(nn.Parameter(torch.zeros(channels, outputs, 1)))
        self.quantiles = nn.Parameter(torch.tensor([-init_scale, 0.0, init_scale]).repeat(channels, 1, 1))
        self.tail_logit = math.log(2 / tail_mass - 1)
        self.tables: Tables | None = None

    def train(self, mode: bool = True) -> "FactorizedPrior":
        if mode:
            self.tables = None  # they describe a density that is about to change
        return super().train(mode)

    def logits(self, values: Tensor, *, detach: bool = False) -> Tensor:
        """Logits of the cumulative distribution at values (C, 1, N); `detach` keeps the gradient from the density."""
        for layer, (matrix, bias) in enumerate(zip(self.matrices, self.biases)):
            parts = [matrix, bias, *([self.factors[layer]] if layer < len(self.factors) else [])]
            matrix, bias, *factor = (part.detach() if detach else part for part in parts)
            values = F.softplus(matrix) @ values + bias
            if factor:
                values = values + torch.tanh(factor[0]) * torch.tanh(values)
        return values

    def probability(self, values: Tensor) -> Tensor:
        """p(v), the mass of the unit interval around each of values (C, 1, N)."""
        lower, upper = self.logits(values - 0.5), self.logits(values + 0.5)
        # both logits on the side where the sigmoid is small keep their difference exact
        sign = -torch.sign(lower + upper).detach()
        return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()

    def likelihood(self, z: Tensor) -> Tensor:
        """p of each entry of z (B, C, ...), at least 1e-9."""
        values = z.transpose(0, 1).flatten(1)[:, None]
        found = lower_bound(self.probability(values), LIKELIHOOD_BOUND)
        return found.reshape(z.transpose(0, 1).shape).transpose(0, 1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            z_hat = z + torch.empty_like(z).uniform_(-0.5, 0.5)
        else:
            medians = self.medians(z)
            z_hat = torch.round(z - medians) + medians
        return z_hat, self.likelihood(z_hat)

    def medians(self, like: Tensor) -> Tensor:
        """Each channel's median, (1, C, 1, ...), around which values are rounded."""
        return self.quantiles[:, 0, 1].detach().reshape(1, -1, *[1] * (like.dim() - 2))

    def symbols(self, z: Tensor) -> Tensor:
        """The integers round(z - median), of z's shape."""
        return torch.round(z - self.medians(z)).int()

    def aux_loss(self) -> Tensor:
        """sum |logits(quantiles) - (-T, 0, T)|; moves the quantiles alone."""
        target = self.quantiles.new_tensor([-self.tail_logit, 0.0, self.tail_logit])
        return (self.logits(self.quantiles, detach=True) - target).abs().sum()

    @torch.no_grad()
    def update(self) -> Tables:
        """Make the integer tables of the present density, one row for each channel."""
        low, median, high = self.quantiles[:, 0].T
        below, above = (torch.ceil(side).clamp_min(0).int() for side in (median - low, high - median))
        length = above + below + 1
        first = median - below
        values = first[:, None] + torch.arange(int(length.max()), device=first.device)
        pmf = self.probability(values[:, None])[:, 0]
        edges = self.logits(values[:, None] - 0.5)[:, 0, 0], self.logits(values[:, None] + 0.5)[:, 0, -1]
        tail = torch.sigmoid(edges[0]) + torch.sigmoid(-edges[1])
        self.tables = tables(pmf, tail, length, -below)
        return self.tables

    def compress(self, z: Tensor) -> list[bytes]:
        """One string of bytes for each sample of z (B, C, ...)."""
        table = self.tables or self.update()
        symbols = self.symbols(z).cpu()
        rows = self._rows(symbols.shape[1:])
        return [encode(sample, rows, table) for sample in symbols]

    def decompress(self, strings: list[bytes], shape: Sequence[int]) -> Tensor:
        """z_hat (B, C, ...) of the samples' `shape` (C, ...)."""
        table = self.tables or self.update()
        symbols = torch.stack([decode(data, self._rows(shape), table) for data in strings])
        symbols = symbols.to(self.quantiles)
        return symbols + self.medians(symbols)

    def _rows(self, shape: Sequence[int]) -> Tensor:
        """The channel of each entry."""
        return torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)).expand(tuple(shape))
