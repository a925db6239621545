"""Any network of timm as a backbone, by its name there: `resnet18`, `resnet50.a1_in1k`, `hf-hub:ORG/NAME`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.models.backbone import Backbone
from zoo.models.library_errors import nearest, not_built
from zoo.models.weight_files import misfits, read_weights


class Timm(Backbone):
    """A network of PyTorch Image Models (github.com/huggingface/pytorch-image-models) without its classifier.

    Args:
        name: passed to timm unchanged.
        in_channels, image_size: of the data; a network with pretrained weights takes three channels at the size it was
            trained at instead, and says so in `preprocessing`.
        pretrained: fetch the weights of the tag.
        checkpoint_path: a local .safetensors or .pth file of weights instead, read without executing pickle.
        input_size: another size than the data's or that of the training.

    Raises:
        ValueError: unknown name or tag (with the nearest ones), weights out of reach, or a file that does not fit.
    """

    def __init__(
        self,
        *,
        name: str,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        input_size: int | Sequence[int] | None = None,
        drop_rate: float = 0.0,
        frozen: bool = False,
    ):
        super().__init__()
        check_name(name)
        has_weights = pretrained or checkpoint_path is not None
        config = default_config(name)
        size = wanted_size(config, image_size if not has_weights else None, input_size)
        arguments: dict[str, Any] = {"in_chans": 3 if has_weights else in_channels, "drop_rate": drop_rate}
        if config.get("fixed_input_size"):
            arguments["img_size"] = size
        self.net = create(name, pretrained=pretrained, **arguments)
        if checkpoint_path is not None:
            load_weights(self.net, checkpoint_path)
        self.feature_channels = self.net.num_features
        self.feature_dim = getattr(self.net, "head_hidden_size", None) or self.net.num_features
        if has_weights:
            self.preprocessing = preprocessing_of(self.net.pretrained_cfg, size)
        if frozen:
            self.freeze()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def feature_map(self, images: Tensor) -> Tensor:
        """The last map before pooling; tokens are laid out on their grid, without class and register tokens."""
        features = self.net.forward_features(images)
        if features.dim() == 4:
            channels_last = features.shape[1] != self.feature_channels
            return features.permute(0, 3, 1, 2) if channels_last else features
        tokens = features[:, getattr(self.net, "num_prefix_tokens", 0) :]
        rows = round(math.sqrt(tokens.shape[1] * images.shape[2] / images.shape[3]))
        return tokens.transpose(1, 2).unflatten(2, (rows, -1))


def is_remote(name: str) -> bool:
    return name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))


def check_name(name: str) -> None:
    import timm
    from timm.models import get_arch_pretrained_cfgs

    if is_remote(name):
        folder = Path(name.removeprefix("local-dir:"))
        if name.startswith("local-dir:") and not (folder / "config.json").is_file():
            raise ValueError(f"the folder {folder} holds no config.json")
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ValueError(f"unknown network of timm {architecture!r}: {nearest(architecture, timm.list_models())}")
    tags = list(get_arch_pretrained_cfgs(architecture))
    if tag and name not in tags:
        raise ValueError(f"{architecture} has no weights {tag!r}: {nearest(name, tags)}")


def default_config(name: str) -> dict[str, Any]:
    from timm.models import get_pretrained_cfg

    config = None if is_remote(name) else get_pretrained_cfg(name, allow_unregistered=True)
    return config.to_dict() if config else {}


def wanted_size(
    config: dict[str, Any], data: Sequence[int] | None, given: int | Sequence[int] | None
) -> tuple[int, int]:
    """(height, width) that the network is built for: as given, else the data's, else that of its training."""
    if isinstance(given, int):
        return given, given
    size = given or data or config.get("input_size", (3, 224, 224))[1:]
    return int(size[0]), int(size[1])


def create(name: str, *, pretrained: bool, **arguments: Any) -> Any:
    import timm

    from zoo.models.attention_patch import with_zoo_attention

    try:
        return with_zoo_attention(timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments))
    except (OSError, RuntimeError) as error:
        raise not_built(name, error, file="backbone.checkpoint_path", random="backbone.pretrained=false") from error


def load_weights(net: nn.Module, path: str) -> None:
    """Load a file of weights for `net`; the classifier that it may hold is left out."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path} (backbone.checkpoint_path)")
    state, wanted = read_weights(path), net.state_dict()
    if wrong := misfits(wanted, state):
        shown = ", ".join(wrong[:3])
        raise ValueError(f"{path} lacks or misfits {len(wrong)} of {len(wanted)} tensors: {shown}, ...")
    net.load_state_dict({key: state[key] for key in wanted})


def preprocessing_of(config: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    return {
        "image_size": size,
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "crop_pct": config.get("crop_pct") or 1.0,
        "interpolation": config.get("interpolation") or "bilinear",
    }
