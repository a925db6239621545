"""The bottlenecks that replace the first half of a CNN: a narrow encoder for the device, a decoder for the server.

    image (B, 3, H, W) --encoder--> z (B, b, h, w) --decoder--> what the replaced half computed

Layer tables of BottleFit (Matsubara et al., arXiv 2201.02693) and, for `layer1_bottleneck`, of GHND (Matsubara &
Levorato, arXiv 2007.15818). All convolutions are without bias. BatchNorm and ReLU after the narrow convolution stand
on the decoder's side (but for ResNet version 1), so the wire carries a raw convolution output, which straddles zero.
"""

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """A sequence of layers cut in two at `cut`: `encoder` runs on the device, `decoder` on the server."""

    def __init__(self, layers: list[nn.Module], *, cut: int):
        super().__init__()
        if not 0 < cut < len(layers):
            raise ValueError(
                f"the cut {cut} of a bottleneck must leave layers on both sides: choose 1 to {len(layers) - 1}"
            )
        self.encoder = nn.Sequential(*layers[:cut])
        self.decoder = nn.Sequential(*layers[cut:])

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) to the decoder's output, without a quantiser between."""
        return self.decoder(self.encoder(x))


def _conv(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)


def _norm(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def _chain(channels: int, *steps: tuple[int, int]) -> list[nn.Module]:
    """BatchNorm, ReLU and a 2x2 convolution of stride 1 for each (output channels, padding)."""
    layers: list[nn.Module] = []
    for outputs, padding in steps:
        layers += [*_norm(channels), _conv(channels, outputs, 2, 1, padding)]
        channels = outputs
    return layers


def resnet_bottleneck(
    channels: int,
    *,
    version: int = 2,
    in_channels: int = 3,
    out_channels: int = 512,
    small_stem: bool = False,
    cut: int | None = None,
) -> Bottleneck:
    """In place of a ResNet's conv1 .. layer2: `out_channels` (512 from ResNet-50 on, 128 below) at stride 8.

    version: 1 cuts early (a large code, a tiny encoder), 2 is the paper's default, 3 cuts late (a small code).
    small_stem: the stem of ResNets for small images (3x3 convolution of stride 1, no pooling), so stride 2 altogether.
    cut: index of the first server layer, by default the published 4, 7 or 10.
    """
    if version not in (1, 2, 3):
        raise ValueError(f"bottleneck version {version}: choose 1, 2 or 3")
    first = channels if version == 1 else 64
    stem_conv = _conv(in_channels, first, 3, 1, 1) if small_stem else _conv(in_channels, first, 7, 2, 3)
    pool = nn.Identity() if small_stem else nn.MaxPool2d(3, 2, 1)
    width = out_channels
    grow, shrink = (width, 1), (width, 0)
    layers = [stem_conv, *_norm(first), pool, *_norm(first)]
    if version == 1:
        layers += [_conv(channels, 64, 2, 2, 1), *_chain(64, grow, grow, shrink, shrink)]
    elif version == 2:
        layers += [_conv(64, channels, 2, 2, 1), *_chain(channels, grow, grow, shrink, shrink)]
    else:
        layers += [_conv(64, width, 2, 2, 1), *_norm(width), _conv(width, channels, 2, 2, 1), *_norm(channels)]
        layers += [nn.ConvTranspose2d(channels, width, 2, 2, bias=False), *_chain(width, grow, shrink, shrink)]
    layers += [nn.AvgPool2d(2, 1)]
    return Bottleneck(layers, cut=cut or {1: 4, 2: 7, 3: 10}[version])


def densenet_bottleneck(channels: int, *, in_channels: int = 3, cut: int | None = None) -> Bottleneck:
    """In place of everything up to a DenseNet's transition2: 256 channels at stride 16."""
    layers = [
        *_stem(in_channels, channels, padding=1),
        *_chain(channels, (512, 1), (512, 1), (256, 0), (256, 0), (256, 0)),
        nn.AvgPool2d(2, 2),
    ]
    return Bottleneck(layers, cut=cut or 7)


def inception_bottleneck(channels: int, *, in_channels: int = 3, cut: int | None = None) -> Bottleneck:
    """In place of everything before Inception-v3's Mixed_5b: 192 channels, 35x35 for an image of 299x299."""
    layers = [
        *_stem(in_channels, channels, padding=0),
        *_chain(channels, (256, 1), (256, 0), (192, 0)),
        nn.AvgPool2d(2, 1),
    ]
    return Bottleneck(layers, cut=cut or 7)


def layer1_bottleneck(channels: int, *, out_channels: int = 256, cut: int | None = None) -> Bottleneck:
    """GHND's bottleneck in place of a ResNet's layer1, after the kept stem: 64 to `out_channels` at the same stride.

    `out_channels` is 256 for ResNet-50 and deeper, 64 for 18 and 34.
    """
    layers = [
        _conv(64, 64, 2, 1, 1),
        nn.BatchNorm2d(64),
        _conv(64, 256, 2, 1, 1),
        *_norm(256),
        _conv(256, 64, 2, 1, 1),
        nn.BatchNorm2d(64),
        _conv(64, channels, 2, 1, 1),
        *_norm(channels),
        _conv(channels, 64, 2, 1, 0),
        nn.BatchNorm2d(64),
        _conv(64, 128, 2, 1, 0),
        *_norm(128),
        _conv(128, out_channels, 2, 1, 0),
        nn.BatchNorm2d(out_channels),
        _conv(out_channels, out_channels, 2, 1, 0),
        *_norm(out_channels),
    ]
    return Bottleneck(layers, cut=cut or 8)


def _stem(in_channels: int, channels: int, *, padding: int) -> list[nn.Module]:
    """The encoder of version 2; Inception-v3 pads neither its convolution nor its pooling."""
    first = _conv(in_channels, 64, 7, 2, 3 * padding)
    return [first, *_norm(64), nn.MaxPool2d(3, 2, padding), *_norm(64), _conv(64, channels, 2, 2, 1)]
