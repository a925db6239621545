"""A stochastic latent: what an encoder says about a sample, as a distribution."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Normal


@dataclass(frozen=True)
class GaussianLatent:
    """q(z|x) = N(mean, diag(std^2)); both (B, L)."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise, for standard normal noise (..., B, L)."""
        return self.mean + self.std * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, (..., B)."""
        return Normal(self.mean, self.std).log_prob(z).sum(-1)

    def rate(self) -> Tensor:
        """KL(q(z|x) || N(0, I)) = 1/2 sum(mean^2 + std^2 - 1 - 2 log std) in nats, (B,)."""
        return 0.5 * (self.mean.square() + self.std.square() - 1 - 2 * torch.log(self.std)).sum(-1)
