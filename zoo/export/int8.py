"""8-bit linear layers in a model's copy (W8A8), for the formats that PyTorch runs."""

import copy
from typing import Any

from torch import nn

from zoo.build import rebuild
from zoo.errors import UserError
from zoo.models.compression.quant_linear import quantize_linears_
from zoo.models.contract import ZooModel

LEAST = 0.5
"""Share of the parameters that has to lie in linear layers for this to be worth a file."""


def quantized(recipe: dict[str, Any], layers: list[str]) -> ZooModel:
    """A model of `recipe` whose linear layers of these names are 8-bit; what the recipe of an 8-bit model calls."""
    model = rebuild(recipe)
    wanted = set(layers)
    quantize_linears_(model, keep=lambda name, _: name not in wanted)
    return model


def quantize_copy(model: ZooModel) -> ZooModel:
    """An 8-bit copy of a model; the model stays as it is.

    Raises:
        UserError: most of its parameters lie in other layers, which only ONNX quantises here.
    """
    changed = copy.deepcopy(model)
    share = linear_share(changed)
    if share < LEAST:
        raise UserError(
            f"--int8: {share:.0%} of the parameters lie in linear layers, the only ones that this format quantises: "
            "take --format onnx, which quantises convolutions too"
        )
    layers = quantize_linears_(changed)
    changed.recipe = {
        "target": f"{quantized.__module__}.{quantized.__name__}",
        "arguments": {"recipe": model.info.recipe, "layers": layers},
        "backbone": None,
    }
    changed.info = copy.deepcopy(model.info)
    changed.info.recipe = changed.recipe
    return changed.eval()


def linear_share(model: nn.Module) -> float:
    """Share of the parameters that plain linear layers hold."""
    total = sum(parameter.numel() for parameter in model.parameters())
    linear = sum(layer.weight.numel() for layer in model.modules() if type(layer) is nn.Linear)
    return linear / max(1, total)
