"""The sequence mixer of Monarch Mixer: gates around a convolution as long as the sequence, instead of attention.

Fu et al., "Monarch Mixer", NeurIPS 2023 (oral), arXiv 2310.12109; its filters are those of Hyena (Poli et al., ICML
2023, arXiv 2302.10866). Reference code: HazyResearch/m2, Apache-2.0.

    x1, x2, v = split(shortconv(W_in u))        a causal depthwise convolution of 3 taps, also in the bidirectional form
    y = W_out (x2 * longconv(x1 * v) + longconv2(u))        longconv2 only with `residual`

    longconv(v)_i = sum_{j <= i} k[i - j] v_j + sum_{j > i} k'[j - i - 1] v_j + d v_i        k' if bidirectional

The filters k are a small network of the position with sines between, times a decay: their number of parameters does not
depend on the length. Both gates and d go into the one call of `fftconv`.
"""

import math

import torch
from torch import Tensor, nn

from zoo.kernels.fftconv import fftconv


class Sine(nn.Module):
    """sin(scale frequency x) with a learned frequency per channel; one such layer serves a whole filter."""

    def __init__(self, channels: int, *, frequency: float, scale: float = 1.0) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, channels), float(frequency)))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.scale * self.freq * x)


class Positions(nn.Module):
    """z = [t, cos(2 pi f n / L), -sin(2 pi f n / L)] of the positions n, with t from 0 to 1; z is learned."""

    t: Tensor

    def __init__(self, length: int, features: int) -> None:
        super().__init__()
        bands = (features - 1) // 2
        t = torch.linspace(0, 1, length)[:, None]
        angle = 2 * math.pi / length * torch.arange(length)[:, None] * torch.linspace(1e-4, bands - 1, bands)
        self.z = nn.Parameter(torch.cat([t, angle.cos(), -angle.sin()], 1)[None])
        self.register_buffer("t", t[None])


class Decay(nn.Module):
    """exp(-t |delta_c|): from 1 at the first tap down to between exp(ln .01 / .3) and exp(ln .01 / 1.5) at the last."""

    deltas: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        slow, fast = math.log(0.01) / 1.5, math.log(0.01) / 0.3
        self.register_buffer("deltas", torch.linspace(slow, fast, channels)[None, None])

    def forward(self, t: Tensor) -> Tensor:
        return torch.exp(-t * self.deltas.abs())


class LongConvolution(nn.Module):
    """longconv above with filters written by a network of the position; u and the result (B, channels, L)."""

    def __init__(
        self,
        channels: int,
        *,
        length: int,
        bidirectional: bool = True,
        order: int = 128,
        position_features: int = 5,
        frequency: float = 10.0,
        frequency_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if position_features % 2 == 0:
            raise ValueError(f"position_features={position_features}: choose an odd number (t, and pairs of waves)")
        sine = Sine(order, frequency=frequency, scale=frequency_scale)

        def network() -> nn.Sequential:
            layers = (nn.Linear(size, order) for size in (position_features, order, order))
            return nn.Sequential(
                *(part for layer in layers for part in (layer, sine)), nn.Linear(order, channels, bias=False)
            )

        self.pos_emb = Positions(length, position_features)
        self.implicit_filter = network()
        self.implicit_filter_rev = network() if bidirectional else None
        self.modulation = Decay(channels)
        self.bias = nn.Parameter(torch.randn(channels))

    def filters(self, length: int) -> tuple[Tensor, Tensor | None]:
        """k and k' (channels, length), of the first `length` positions."""
        z, decay = self.pos_emb.z[:, :length], self.modulation(self.pos_emb.t[:, :length])
        forward = (self.implicit_filter(z) * decay)[0].t()
        if self.implicit_filter_rev is None:
            return forward, None
        return forward, (self.implicit_filter_rev(z) * decay)[0].t()

    def forward(self, u: Tensor, *, in_gate: Tensor | None = None, out_gate: Tensor | None = None) -> Tensor:
        length = u.shape[2]
        if length > self.pos_emb.t.shape[1]:
            raise ValueError(f"{length} positions, but the filters were made for {self.pos_emb.t.shape[1]}")
        taps, reverse = self.filters(length)
        taps = torch.cat([taps[:, :1] + self.bias[:, None], taps[:, 1:]], 1)
        if reverse is None:
            return fftconv(u, taps, in_gate=in_gate, out_gate=out_gate)
        # what lies ahead is what lies behind the end of a circle of at least two lengths
        size = 1 << (2 * length - 1).bit_length()
        gap = taps.new_zeros(len(taps), size - 2 * length)
        taps = torch.cat([taps, gap, reverse.flip(1)], 1)
        return fftconv(u, taps, fft_size=size, in_gate=in_gate, out_gate=out_gate)


class M2SequenceMixer(nn.Module):
    """Mixes (B, L, channels) along L; see the head of this file.

    length: the longest L. residual: add a second long convolution, of the input itself. norm: normalise the input, as
    some of the released configurations do. dropout: on x1 * v and before the last projection, with `norm` only.

    >>> M2SequenceMixer(16, length=49, order=8)(torch.zeros(2, 49, 16)).shape
    torch.Size([2, 49, 16])
    """

    def __init__(
        self,
        channels: int,
        *,
        length: int,
        bidirectional: bool = True,
        residual: bool = True,
        order: int = 128,
        position_features: int = 5,
        frequency: float = 10.0,
        frequency_scale: float = 1.0,
        norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()

        def convolution() -> LongConvolution:
            return LongConvolution(
                channels,
                length=length,
                bidirectional=bidirectional,
                order=order,
                position_features=position_features,
                frequency=frequency,
                frequency_scale=frequency_scale,
            )

        self.in_linear = nn.Linear(channels, 3 * channels)
        self.short_filter = nn.Conv1d(3 * channels, 3 * channels, 3, padding=2, groups=3 * channels)
        self.filter_fn = convolution()
        self.filter_fn2 = convolution() if residual else None
        self.out_linear = nn.Linear(channels, channels)
        self.layernorm = nn.LayerNorm(channels) if norm else None
        self.drop = nn.Dropout(dropout if norm else 0.0)

    def forward(self, u: Tensor) -> Tensor:
        if self.layernorm is not None:
            u = self.layernorm(u)
        parts = self.short_filter(self.in_linear(u).transpose(1, 2))[..., : u.shape[1]]
        x1, x2, v = parts.chunk(3, dim=1)
        y = self.filter_fn(self.drop(v), in_gate=x1, out_gate=x2)
        if self.filter_fn2 is not None:
            y = y + self.filter_fn2(u.transpose(1, 2))
        return self.out_linear(self.drop(y.transpose(1, 2)))
