"""8-bit linear layers in a model's copy (W8A8), for the formats that PyTorch runs."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from zoo.build import rebuild
from zoo.errors import UserError
from zoo.models.compression.quant_linear import quantize_linears_
from zoo.models.contract import Batch, Intervention, Output, ZooModel

LEAST = 0.5
"""Share of the parameters that has to lie in linear layers for this to be worth a file."""


class Quantized(ZooModel):
    """A model of `recipe` whose linear layers of these names are 8-bit: what the recipe of an 8-bit file calls.

    It has the attributes and methods of the model within.
    """

    def __init__(self, *, recipe: dict[str, Any], layers: Sequence[str]):
        super().__init__()
        self.model = rebuild(recipe)
        wanted = set(layers)
        quantize_linears_(self.model, keep=lambda name, _: name not in wanted)
        self.concept_names = self.model.concept_names

    def forward(self, images: Tensor, intervene: Intervention | None = None) -> Output:
        return self.model(images, intervene)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        return self.model.forward_features(features, intervene)

    def diagnostics(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return self.model.diagnostics(output, batch)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


def quantize_copy(model: ZooModel) -> ZooModel:
    """An 8-bit copy of a model; the model stays as it is.

    Raises:
        UserError: most of its parameters lie in other layers, which only ONNX quantises here.
    """
    share = linear_share(model)
    if share < LEAST:
        raise UserError(
            f"--int8: {share:.0%} of the parameters lie in linear layers, the only ones that this format quantises: "
            "take --format onnx, which quantises convolutions too"
        )
    recipe = {"recipe": model.info.recipe, "layers": linear_layers(model)}
    changed = Quantized(**recipe)
    within = copy.deepcopy(model)
    quantize_linears_(within)
    changed.model = within
    changed.recipe = {"target": f"{Quantized.__module__}.{Quantized.__name__}", "arguments": recipe, "backbone": None}
    changed.info = copy.deepcopy(model.info)
    changed.info.recipe = changed.recipe
    return changed.eval()


def linear_layers(model: nn.Module) -> list[str]:
    """The names that `quantize_linears_` replaces."""
    return [name for name, layer in model.named_modules(remove_duplicate=False) if type(layer) is nn.Linear]


def linear_share(model: nn.Module) -> float:
    """Share of the parameters that plain linear layers hold."""
    total = sum(parameter.numel() for parameter in model.parameters())
    linear = sum(layer.weight.numel() for layer in model.modules() if type(layer) is nn.Linear)
    return linear / max(1, total)
