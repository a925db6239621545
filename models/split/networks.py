"""Torchvision networks cut in two: the stem that a bottleneck replaces, and the tail that stays as it is.

    image --stem--> map --tail--> logits

Both are `nn.Sequential` with torchvision's module names, so that its weights load into them; `split_state`
sorts a state_dict of the whole network into theirs.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet


@dataclass(frozen=True)
class Cut:
    """last: the last replaced module. hints: the modules whose outputs GHND compares, the first being `last`."""

    last: str
    hints: tuple[str, ...]


_RESNET = Cut("layer2", ("layer2", "layer3", "layer4"))
_DENSENET = Cut("transition2", ("transition2", "transition3", "denseblock4"))
CUTS: dict[str, Cut] = {
    **{f"resnet{depth}": _RESNET for depth in (10, 18, 34, 50, 101, 152)},
    **{f"densenet{depth}": _DENSENET for depth in (169, 201)},
    "inception_v3": Cut("maxpool2", ("maxpool2", "Mixed_6e", "Mixed_7c")),
}


def cut_network(
    name: str, *, num_outputs: int, in_channels: int = 3, small_stem: bool = False
) -> tuple[nn.Sequential, nn.Sequential]:
    """The stem and the tail of torchvision's network `name`, with random weights.

    small_stem: a ResNet for small images: a 3x3 convolution of stride 1 and no pooling in front.
    """
    if name not in CUTS:
        near = get_close_matches(name, CUTS, n=1)
        raise ValueError(
            f"network {name!r} cannot be cut: "
            + (f"did you mean {near[0]}?" if near else f"choose one of {', '.join(CUTS)}")
        )
    modules = _modules(name, num_outputs)
    if in_channels != 3 or small_stem:
        _change_stem(modules, in_channels, small_stem)
    names = list(modules)
    after = names.index(CUTS[name].last) + 1
    return (
        nn.Sequential(OrderedDict((key, modules[key]) for key in names[:after])),
        nn.Sequential(OrderedDict((key, modules[key]) for key in names[after:])),
    )


def _modules(name: str, num_outputs: int) -> dict[str, nn.Module]:
    """The network as named modules in the order in which they run; resnet10 is resnet18 with half its blocks."""
    if name.startswith("densenet"):
        dense = torchvision.models.get_model(name, weights=None, num_classes=num_outputs)
        pooled = {"relu": nn.ReLU(), "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
        return {**dict(dense.features.named_children()), **pooled, "classifier": dense.classifier}
    if name == "resnet10":
        network: nn.Module = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_outputs)
    else:
        options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
        network = torchvision.models.get_model(name, weights=None, num_classes=num_outputs, **options)
    modules = {key: module for key, module in network.named_children() if module is not None}
    head = modules.pop("fc")
    return {**modules, "flatten": nn.Flatten(), "fc": head}


def _change_stem(modules: dict[str, nn.Module], in_channels: int, small_stem: bool) -> None:
    name = "conv1" if "conv1" in modules else "conv0"
    if name not in modules or (small_stem and name == "conv0"):
        raise ValueError(
            "only ResNets have a stem for small images, and only ResNets and DenseNets another channel count"
        )
    kernel, stride, padding = (3, 1, 1) if small_stem else (7, 2, 3)
    modules[name] = nn.Conv2d(in_channels, 64, kernel, stride=stride, padding=padding, bias=False)
    if small_stem:
        modules["maxpool"] = nn.Identity()


def run_with_features(layers: nn.Sequential, x: Tensor, names: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output of a named sequence, and the outputs of those of its modules that are named."""
    wanted, features = set(names), {}
    for name, layer in layers.named_children():
        x = layer(x)
        if name in wanted:
            features[name] = x
    return x, features


def module_name(network: str, key: str) -> str:
    """A key of torchvision's state_dict as a key of stem or tail (`features.norm5.bias` -> `norm5.bias`)."""
    return key.removeprefix("features.") if network.startswith("densenet") else key


def split_state(network: str, state: dict[str, Tensor], stem: nn.Module, tail: nn.Module) -> tuple[dict, dict]:
    """A torchvision state_dict as those of the stem and the tail; what belongs to neither goes with the tail's."""
    named = {module_name(network, key): value for key, value in state.items()}
    own = stem.state_dict().keys()
    return {k: v for k, v in named.items() if k in own}, {k: v for k, v in named.items() if k not in own}
