"""The whole network that a split student learns from, cut where the student is cut."""

import copy
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from zoo.models.split.networks import CUTS, run_with_features, split_state
from zoo.models.weight_files import misfits


class Teacher(nn.Module):
    """`stem` and `tail` of a network; called with images, its logits and the feature maps that GHND compares.

    Until its student is fine-tuned, the two share one tail, the student's; `follow` keeps this copy of it up to date.
    """

    def __init__(self, network: str, stem: nn.Sequential, tail: nn.Sequential):
        super().__init__()
        self.network = network
        self.stem, self.tail = stem, copy.deepcopy(tail)
        self.requires_grad_(False)

    @property
    def learns(self) -> bool:
        """Whether the present stage of training is the teacher's own."""
        return next(self.stem.parameters()).requires_grad

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        names = CUTS[self.network].hints
        features = self.stem(images)
        logits, later = run_with_features(self.tail, features, names)
        return logits, {names[0]: features, **later}

    @torch.no_grad()
    def follow(self, tail: nn.Module) -> None:
        """Take the weights of the student's tail."""
        theirs = tail.state_dict()
        for name, value in self.tail.state_dict().items():
            value.copy_(theirs[name])

    def load(self, state: dict[str, Tensor], tail: nn.Module, *, source: str, keep_classifier: bool = False) -> None:
        """Load torchvision's state_dict into the stem and into `tail`, the student's; keep_classifier: but for its last
        layer, which the weights have for other classes.

        Raises:
            ValueError: tensors are absent or have another shape.
        """
        stem, rest = split_state(self.network, state, self.stem, tail)
        own = tail.state_dict()
        if keep_classifier:
            rest |= {key: own[key] for key in list(own)[-2:]}
        wanted, found = {**self.stem.state_dict(), **own}, {**stem, **rest}
        if wrong := misfits(wanted, found):
            shown = ", ".join(wrong[:3])
            raise ValueError(f"{source} misfit the teacher {self.network} in {len(wrong)} tensors: {shown}")
        self.stem.load_state_dict(stem)
        tail.load_state_dict({key: rest[key] for key in own})
        self.follow(tail)


def imagenet_weights(network: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights, first version, from its cache or downloaded.

    Raises:
        ValueError: they are out of reach.
    """
    weights = torchvision.models.get_model_weights(network)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=False))
    except OSError as error:
        raise ValueError(
            f"torchvision's weights of {network} are out of reach ({error}): give a file as teacher_checkpoint"
        ) from error


def check_source(network: str, *, checkpoint: str | None, pretrained: bool, in_channels: int, small_stem: bool) -> None:
    """Refuse, before anything slow, weights that cannot be had or cannot fit."""
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise ValueError(f"there is no file {checkpoint} (teacher_checkpoint)")
    if pretrained and network == "resnet10":
        raise ValueError("resnet10 has no pretrained weights: take resnet18, or teacher_pretrained=false")
    if pretrained and (in_channels != 3 or small_stem):
        raise ValueError("teacher_pretrained needs images of 3 channels and stem=imagenet: the weights fit no other")
