"""Bottlenecks whose code is entropy-coded: the network learns what its code costs in bits.

Matsubara, Yang, Levorato, Mandt, "Supervised Compression for Resource-Constrained Edge Computing Systems" (Entropic
Student), WACV 2022, arXiv 2108.11898, and SC2 benchmark, TMLR 2023, arXiv 2203.08875.

    image (B, 3, H, W) --analysis--> latent (B, b, H / 4 - 1, W / 4 - 1) == bytes ==> synthesis --> (B, t, H / 4, W / 4)

They replace a ResNet's conv1 .. layer1.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.split.factorized_prior import FactorizedPrior
from zoo.models.split.gaussian_conditional import GaussianConditional
from zoo.models.split.gdn import GDN1


class Compressed(NamedTuple):
    """output: the synthesis. latent: what it is made from. bits: of each sample (B,) by the model's likelihoods; of a
    hyperprior the latent's alone, with those of its side information in `side_bits`."""

    output: Tensor
    latent: Tensor
    bits: Tensor
    side_bits: Tensor


def bits(likelihood: Tensor) -> Tensor:
    """(B,) -log2 of each sample's likelihoods."""
    return -torch.log2(likelihood).flatten(1).sum(1)


def analysis(in_channels: int, channels: int) -> nn.Sequential:
    """Images to a latent of `channels` at a quarter of the size, less one."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 4 * channels, 5, stride=2, padding=2, bias=False),
        GDN1(4 * channels),
        nn.Conv2d(4 * channels, 2 * channels, 5, stride=2, padding=2, bias=False),
        GDN1(2 * channels),
        nn.Conv2d(2 * channels, channels, 2, bias=False),
    )


def synthesis(channels: int, out_channels: int) -> nn.Sequential:
    """A latent to the feature map of the replaced layers."""
    return nn.Sequential(
        nn.Conv2d(channels, 2 * out_channels, 2, padding=1, bias=False),
        GDN1(2 * out_channels, inverse=True),
        nn.Conv2d(2 * out_channels, out_channels, 2, bias=False),
        GDN1(out_channels, inverse=True),
        nn.Conv2d(out_channels, out_channels, 2, padding=1, bias=False),
    )


class FactorizedBottleneck(nn.Module):
    """The Entropic Student's bottleneck: a factorised prior on its latent."""

    def __init__(self, *, in_channels: int = 3, channels: int = 24, out_channels: int = 256):
        super().__init__()
        self.encoder = analysis(in_channels, channels)
        self.decoder = synthesis(channels, out_channels)
        self.entropy_bottleneck = FactorizedPrior(channels)

    def forward(self, x: Tensor) -> Compressed:
        latent, likelihood = self.entropy_bottleneck(self.encoder(x))
        cost = bits(likelihood)
        return Compressed(self.decoder(latent), latent, cost, torch.zeros_like(cost))

    def compress(self, x: Tensor) -> tuple[list[bytes], torch.Size]:
        """Each sample's bytes, and the latent's shape (b, h, w) that the receiver needs beside them."""
        z = self.encoder(x)
        return self.entropy_bottleneck.compress(z), z.shape[1:]

    def decompress(self, strings: list[bytes], shape: torch.Size) -> Tensor:
        """The decoder's output from the bytes of `compress`."""
        return self.decoder(self.entropy_bottleneck.decompress(strings, shape))


class HyperpriorBottleneck(nn.Module):
    """A Gaussian prior on the latent y, whose scales (and means) are read from side information z.

    mean_scale: predict means too (MSHP), from y itself; without, the mean is zero and z sees |y| (SHP).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: int = 24,
        side_channels: int = 16,
        out_channels: int = 256,
        mean_scale: bool = True,
    ):
        super().__init__()
        self.mean_scale = mean_scale
        side, wide = side_channels, int(1.5 * side_channels) if mean_scale else side_channels
        self.g_a, self.g_s = analysis(in_channels, channels), synthesis(channels, out_channels)
        self.h_a = nn.Sequential(
            nn.Conv2d(channels, side, 5, stride=2, padding=1, bias=False),
            nn.LeakyReLU() if mean_scale else nn.ReLU(),
            nn.Conv2d(side, side, 5, stride=2, padding=2, bias=False),
        )
        self.h_s = nn.Sequential(
            nn.ConvTranspose2d(side, side, 5, stride=2, padding=1, bias=False),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(side, wide, 5, stride=2, padding=1, bias=False),
            nn.LeakyReLU(),
            nn.Conv2d(wide, 2 * channels if mean_scale else channels, 5, bias=False),
        )
        self.entropy_bottleneck = FactorizedPrior(side)
        self.gaussian_conditional = GaussianConditional()

    def forward(self, x: Tensor) -> Compressed:
        y = self.g_a(x)
        z_hat, z_likelihood = self.entropy_bottleneck(self.side(y))
        y_hat, y_likelihood = self.gaussian_conditional(y, *self.parameters_of(z_hat))
        return Compressed(self.g_s(y_hat), y_hat, bits(y_likelihood), bits(z_likelihood))

    def side(self, y: Tensor) -> Tensor:
        """The side information z of a latent."""
        return self.h_a(y if self.mean_scale else y.abs())

    def parameters_of(self, z_hat: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scales and means of the latent, as sender and receiver both read them from the decoded side information."""
        predicted = self.h_s(z_hat)
        if not self.mean_scale:
            return predicted, None
        scales, means = predicted.chunk(2, dim=1)
        return scales, means

    def compress(self, x: Tensor) -> tuple[list[bytes], list[bytes], torch.Size]:
        """Each sample's bytes of latent and side information, and the shape of the latter."""
        y = self.g_a(x)
        z = self.side(y)
        strings = self.entropy_bottleneck.compress(z)
        z_hat = self.entropy_bottleneck.decompress(strings, z.shape[1:])
        return self.gaussian_conditional.compress(y, *self.parameters_of(z_hat)), strings, z.shape[1:]

    def decompress(self, latent: list[bytes], side: list[bytes], shape: torch.Size) -> Tensor:
        """The synthesis from the bytes of `compress`."""
        z_hat = self.entropy_bottleneck.decompress(side, shape)
        return self.g_s(self.gaussian_conditional.decompress(latent, *self.parameters_of(z_hat)))


def convert_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys of the authors' bottlenecks (on compressai): their constants and tables are computed here, not stored."""
    constant = ("bound", "pedestal", ".target", "_quantized_cdf", "_offset", "_cdf_length", "scale_table")
    return {key: value for key, value in state.items() if not key.endswith(constant)}
