"""Any network of timm as a classifier, by its name there.

R. Wightman, PyTorch Image Models, github.com/huggingface/pytorch-image-models (Apache-2.0; weights under licences of
their own). The network is timm's, unchanged but for how its attention is computed (`zoo.models.attention_patch`); its
classifier is rebuilt where the data's classes are not those of the weights.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from zoo.models.attention_patch import with_zoo_attention
from zoo.models.contract import Batch, Intervention, Output, ZooModel
from zoo.models.task_loss import task_loss
from zoo.models.timm_backbone import check_name, default_config, preprocessing_of
from zoo.models.weight_files import misfits, read_weights

log = logging.getLogger(__name__)


class Timm(ZooModel):
    """A timm network; features are what its `forward_features` gives, and its `forward_head` predicts from them.

    Args:
        name: as in timm, with or without a tag (`resnet18.a1_in1k`), or hf-hub:ORG/NAME, or local-dir:FOLDER.
        in_channels, image_size: of the data; pretrained weights are adapted to both, as timm does it.
        pretrained: fetch the weights of the tag.
        checkpoint_path: a local .safetensors or .pth file of weights instead, read without executing pickle.

    Attributes:
        preprocessing: with weights, what they expect of an image, as `zoo.data.contract.Preprocessing.from_dict` takes
        it.

    Raises:
        ValueError: unknown name or tag (with the nearest), weights out of reach or of another network, an image size
            that the network does not take.
    """

    preprocessing: dict[str, Any] | None = None

    def __init__(
        self,
        *,
        name: str,
        num_outputs: int,
        in_channels: int = 3,
        image_size: Sequence[int] = (224, 224),
        task: Literal["classification", "regression"] = "classification",
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
    ):
        super().__init__()
        check_name(name)
        if checkpoint_path is not None and not Path(checkpoint_path).is_file():
            raise ValueError(f"there is no file {checkpoint_path} (checkpoint_path)")
        self.task = task
        options: dict[str, Any] = {"num_classes": num_outputs, "in_chans": in_channels, "drop_rate": drop_rate}
        options |= {} if drop_path_rate is None else {"drop_path_rate": drop_path_rate}
        if default_config(name).get("fixed_input_size"):
            options["img_size"] = tuple(image_size)
        on_meta = torch.get_default_device().type == "meta"
        net: Any = _create(name, pretrained and checkpoint_path is None and not on_meta, options)
        self.net, config = net, net.pretrained_cfg
        if checkpoint_path is not None and not on_meta:
            _load(net, checkpoint_path)
        elif pretrained and not on_meta and config.get("num_classes") != num_outputs:
            log.warning(
                "%s: the classifier is rebuilt for %d classes (the weights have %s)",
                name,
                num_outputs,
                config.get("num_classes"),
            )
        if pretrained or checkpoint_path is not None:
            self.preprocessing = _with_channels(preprocessing_of(config, (image_size[0], image_size[1])), in_channels)

    def forward(self, images: Tensor, intervene: Intervention | None = None) -> Output:
        return self.forward_features(self.net.forward_features(images), intervene)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features: the unpooled map or tokens of timm's `forward_features`."""
        return Output(self.net.forward_head(features), latent=features)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, or mean squared error in regression."""
        return {"loss": task_loss(output.prediction, batch["label"], task=self.task)}

    def fitted_arguments(self) -> dict[str, Any]:
        """A saved model carries its weights: nothing is fetched to build it again."""
        return {"pretrained": False, "checkpoint_path": None}

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's own keys."""
        return {f"net.{key.removeprefix('module.')}": value for key, value in state.items()}


def _create(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    try:
        return with_zoo_attention(timm.create_model(name, pretrained=pretrained, **options))
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        hint = "give a local file as checkpoint_path, or pretrained=false" if pretrained else "check its options"
        raise ValueError(f"{name} could not be built ({reason}): {hint}") from error
    except (AssertionError, ZeroDivisionError, ValueError) as error:
        size = options.get("img_size")
        raise ValueError(f"{name} takes no images of {size}: change data.image_size ({error})") from error


def _load(net: Any, path: str) -> None:
    """Load weights from a file; a classifier for other classes is left as it was built."""
    state, wanted = read_weights(path), net.state_dict()
    heads = net.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    wrong = misfits(wanted, state)
    if beyond := [key for key in wrong if not key.startswith(heads)]:
        raise ValueError(f"{path} lacks or misfits {len(beyond)} of {len(wanted)} tensors: {', '.join(beyond[:3])}")
    if wrong:
        log.warning("%s: the classifier is rebuilt, the file has one for other classes", path)
    net.load_state_dict({key: state[key] for key in wanted if key not in wrong}, strict=False)


def _with_channels(preprocessing: dict[str, Any], channels: int) -> dict[str, Any]:
    """Mean and deviation for another number of channels than the weights': the average of theirs."""
    for key in ("mean", "std"):
        values = preprocessing[key]
        if len(values) != channels:
            preprocessing[key] = (sum(values) / len(values),) * channels
    return preprocessing
