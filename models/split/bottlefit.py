"""BottleFit: a CNN split between a device and a server, with a narrow 8-bit code on the link.

Matsubara, Callegaro, Singh, Levorato, Restuccia, "BottleFit: Learning Compressed Representations in Deep Neural
Networks for Effective and Efficient Split Computing", IEEE WoWMoM 2022, arXiv 2201.02693; its first stage is GHND,
arXiv 2007.15818.

    image --encoder, quantiser--> code == link ==> --dequantise, decoder, tail of the CNN--> logits
            \\____ head, device ____/              \\__________ tail, server __________/

Training: (teacher) the whole CNN learns, unless its weights are given; (distil) encoder and decoder imitate the
feature maps of the half they replace, the CNN's tail resting; (finetune) everything after the link learns labels and
teacher's logits.

Where the released code and this differ: there the BatchNorm statistics of frozen parts keep moving, here they rest;
there a batch shares one quantiser range whose zero point saturates (`quantizer="batch"`), here each image has its own.
"""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.contract import Batch, Intervention, Output, Stage, ZooModel
from zoo.models.split.bottlenecks import Bottleneck, densenet_bottleneck, inception_bottleneck, resnet_bottleneck
from zoo.models.split.distillation import Reduction, hint_terms, kd_loss
from zoo.models.split.networks import CUTS, cut_network, run_with_features
from zoo.models.split.quantizer import AffineQuantizer, Message
from zoo.models.split.teacher import Teacher, check_source, imagenet_weights
from zoo.models.split.wire import code_bytes
from zoo.models.weight_files import read_weights


class Head(nn.Module):
    """The device's part: images (B, C, H, W) to the `Message` that is sent."""

    def __init__(self, encoder: nn.Module, quantizer: AffineQuantizer):
        super().__init__()
        self.encoder, self.quantizer = encoder, quantizer

    def forward(self, images: Tensor) -> Message:
        return self.quantizer(self.encoder(images))


class Tail(nn.Module):
    """The server's part: the fields of a `Message` to logits (B, M)."""

    def __init__(self, decoder: nn.Module, layers: nn.Sequential, quantizer: AffineQuantizer):
        super().__init__()
        self.decoder, self.layers, self.quantizer = decoder, layers, quantizer

    def forward(self, code: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        return self.layers(self.decoder(self.quantizer.dequantize(code, scale, zero_point)))


class BottleFit(ZooModel):
    """A torchvision CNN whose first half is replaced by a bottleneck; `tail(*head(images))` is its prediction.

    Args:
        network: resnet10 (resnet18 with half its blocks), resnet18 .. 152, densenet169, densenet201 or inception_v3.
        stem: "small" has a 3x3 convolution of stride 1 and no pooling (ResNets, images below 64 pixels), "imagenet" the
            original; "auto" decides by the image size.
        bottleneck_channels, version: width and (ResNets) depth of the cut, see `resnet_bottleneck`.
        num_bits: of a code, 1 to 8.
        quantizer: range of the codes for each "image", or for the whole "batch" as released.
        quantize_training: send training through the quantiser too, with a straight-through gradient.
        hints: "ghnd" imitates three feature maps, "hnd" only the bottleneck's own.
        hint_reduction: of the squared distances; "sum" as published grows with batch and resolution.
        finetune: what learns last: the "tail" (the device's encoder stays as deployed), or "all".
        kd_alpha, kd_temperature: L = alpha CE + (1 - alpha) T^2 KL; alpha 1 needs no teacher's logits.
        teacher_checkpoint: file with the state_dict of torchvision's `network` for these classes, safetensors or
            weights-only torch; the teacher stage is then left out.
        teacher_pretrained: start from torchvision's ImageNet weights (downloaded when training begins).

    Shapes: images (B, in_channels, H, W), code (B, b, h, w) uint8, latent (B, b, h, w) as decoded from it. extras hold
    the feature maps named `bottleneck` and, for the hints, by the network's modules; and `scale`, `zero_point` of the
    message.
    """

    training_only: ClassVar[tuple[str, ...]] = ("teacher.",)

    def __init__(
        self,
        *,
        num_outputs: int,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
        task: str = "classification",
        network: str = "resnet18",
        stem: Literal["auto", "imagenet", "small"] = "auto",
        version: int = 2,
        bottleneck_channels: int = 12,
        num_bits: int = 8,
        quantizer: Literal["image", "batch"] = "image",
        quantize_training: bool = False,
        hints: Literal["ghnd", "hnd"] = "ghnd",
        hint_reduction: Reduction = "sum",
        finetune: Literal["tail", "all"] = "tail",
        kd_alpha: float = 0.5,
        kd_temperature: float = 1.0,
        teacher_checkpoint: str | None = None,
        teacher_pretrained: bool = False,
    ):
        super().__init__()
        self.network, self.num_outputs, self.num_bits = network, num_outputs, num_bits
        self.quantize_training, self.hint_reduction, self.finetune = quantize_training, hint_reduction, finetune
        self.kd_alpha, self.kd_temperature = kd_alpha, kd_temperature
        self.teacher_checkpoint, self.teacher_pretrained = teacher_checkpoint, teacher_pretrained
        small = stem == "small" or (stem == "auto" and network.startswith("resnet") and min(image_size) < 64)
        if task != "classification":
            raise ValueError("bottlefit classifies: it takes no regression data")
        if bottleneck_channels < 1:
            raise ValueError(f"bottleneck_channels={bottleneck_channels}: give at least 1")
        check_source(
            network,
            checkpoint=teacher_checkpoint,
            pretrained=teacher_pretrained,
            in_channels=in_channels,
            small_stem=small,
        )
        stem_layers, tail_layers = cut_network(
            network, num_outputs=num_outputs, in_channels=in_channels, small_stem=small
        )
        bottleneck = _bottleneck(network, bottleneck_channels, version, in_channels, small)
        _check_alignment(stem_layers, tail_layers, bottleneck, (in_channels, *image_size))
        link = AffineQuantizer(num_bits=num_bits, per=quantizer)
        self.head = Head(bottleneck.encoder, link)
        self.tail = Tail(bottleneck.decoder, tail_layers, link)
        self.teacher = Teacher(network, stem_layers, tail_layers)
        first, *later = CUTS[network].hints
        self.hint_pairs = [("bottleneck", first), *((name, name) for name in later if hints == "ghnd")]

    def forward(self, images: Tensor, intervene: Intervention | None = None) -> Output:
        """images (B, C, H, W). While the teacher's stem learns, the teacher answers: the student has no tail yet."""
        if self.training and self.teacher.learns:
            return Output(self.tail.layers(self.teacher.stem(images)))
        z = self.head.encoder(images)
        message = self.head.quantizer(z)
        if not self.training:
            z = self.tail.quantizer.dequantize(*message)
        elif self.quantize_training:
            z = self.head.quantizer.straight_through(z)
        decoded = self.tail.decoder(z)
        logits, features = run_with_features(self.tail.layers, decoded, CUTS[self.network].hints)
        features |= {"bottleneck": decoded, "scale": message.scale, "zero_point": message.zero_point}
        return Output(logits, latent=z, code=message.code, extras=features)

    def stages(self) -> list[Stage]:
        """Teacher (without given weights for these classes), head distillation, fine-tuning; the published lengths are
        10 epochs each for the last two."""
        tail = ("tail.layers.",)
        stages = [
            Stage("distil", trains=("head.", "tail.decoder."), loss="distil_loss"),
            Stage("finetune", trains=("head.", "tail.") if self.finetune == "all" else ("tail.",), lr_scale=0.3),
        ]
        complete = self.teacher_checkpoint is not None or (self.teacher_pretrained and self.num_outputs == 1000)
        return stages if complete else [Stage("teacher", trains=("teacher.stem.", *tail), loss="teacher_loss"), *stages]

    def teacher_loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy and accuracy of the whole CNN; in evaluation the output is the student's, so the teacher runs
        here."""
        logits = output.prediction if self.training else self.tail.layers(self.teacher.stem(batch["image"]))
        right = (logits.argmax(-1) == batch["label"]).float()
        return {"loss": F.cross_entropy(logits, batch["label"]), "acc": right.mean()}

    def distil_loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Sum over the hint pairs of the squared distance between student's and teacher's feature maps (GHND)."""
        self.teacher.follow(self.tail.layers)
        terms = self.hint_terms(output, batch["image"])
        return {"loss": terms.sum(), **{name: term for (name, _), term in zip(self.hint_pairs, terms)}}

    def hint_terms(self, output: Output, images: Tensor) -> Tensor:
        """(P,) the squared distances of `distil_loss`, one for each pair of `hint_pairs`."""
        _, target = self.teacher(images)
        return hint_terms(output.extras, target, pairs=self.hint_pairs, reduction=self.hint_reduction)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """kd_alpha * CE + (1 - kd_alpha) * T^2 * KL to the teacher's logits."""
        if self.kd_alpha == 1:
            return {"loss": F.cross_entropy(output.prediction, batch["label"])}
        teacher, _ = self.teacher(batch["image"])
        return kd_loss(output.prediction, teacher, batch["label"], alpha=self.kd_alpha, temperature=self.kd_temperature)

    def diagnostics(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Bytes of each image's message: `code_bytes` as packed, `code_bytes_zlib` as deflated."""
        sizes = self.code_bytes(output)
        return {"code_bytes": sizes["tensor"], "code_bytes_zlib": sizes["zlib"]}

    def code_bytes(self, output: Output) -> dict[str, Tensor]:
        """Bytes (B,) that really cross the link for each image, header included; see `zoo.models.split.wire`."""
        assert output.code is not None
        return code_bytes(output.code, self.num_bits)

    def prepare(self, datamodule: Any) -> None:
        """Load the teacher's weights, where some are given, into the teacher and the student's tail."""
        layers = self.tail.layers
        if self.teacher_checkpoint is not None:
            self.teacher.load(read_weights(self.teacher_checkpoint), layers, source=self.teacher_checkpoint)
        elif self.teacher_pretrained:
            weights, other = imagenet_weights(self.network), self.num_outputs != 1000
            self.teacher.load(weights, layers, source="torchvision's weights", keep_classifier=other)

    def fitted_arguments(self) -> dict[str, Any]:
        """A trained model needs its teacher's weights no more."""
        return {"teacher_checkpoint": None, "teacher_pretrained": False}

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys of the authors' students (`bottleneck.encoder.0.weight`, `layer3...`, `features.norm5...`)."""
        renamed = {}
        for key, value in state.items():
            name = key.removeprefix("module.").removeprefix("features.")
            if name.startswith("bottleneck.encoder."):
                renamed[name.replace("bottleneck.", "head.", 1)] = value
            elif name.startswith("bottleneck.decoder."):
                renamed[name.replace("bottleneck.", "tail.", 1)] = value
            else:
                renamed[f"tail.layers.{name}"] = value
        return renamed


def _bottleneck(network: str, channels: int, version: int, in_channels: int, small: bool) -> Bottleneck:
    if network.startswith("densenet"):
        return densenet_bottleneck(channels, in_channels=in_channels)
    if network.startswith("inception"):
        return inception_bottleneck(channels, in_channels=in_channels)
    out_channels = 128 if network in ("resnet10", "resnet18", "resnet34") else 512
    return resnet_bottleneck(
        channels, version=version, in_channels=in_channels, out_channels=out_channels, small_stem=small
    )


@torch.no_grad()
def _check_alignment(stem: nn.Module, tail: nn.Module, bottleneck: nn.Module, size: tuple[int, ...]) -> None:
    """The 2x2 convolutions pad and crop by one, so that the maps of bottleneck and stem match for some sizes only."""
    image = torch.empty(1, *size, device="meta")
    try:
        stem, tail, bottleneck = (copy.deepcopy(part).to("meta").eval() for part in (stem, tail, bottleneck))
        wanted, got = stem(image).shape[2:], bottleneck(image).shape[2:]
        tail(stem(image))
    except RuntimeError as error:
        raise ValueError(f"images of {size[1]}x{size[2]} are too small for this network and stem") from error
    if wanted != got:
        raise ValueError(
            f"images of {size[1]}x{size[2]} do not align: the bottleneck gives {got[0]}x{got[1]} where the network has "
            f"{wanted[0]}x{wanted[1]}; take a multiple of 32, or an even size with stem=small"
        )
