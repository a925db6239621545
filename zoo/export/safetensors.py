"""safetensors: weights with the recipe of the model, for `zoo.load(path)`; the model is not cut or traced."""

from pathlib import Path
from typing import Any

from zoo.artifact import load, save_model
from zoo.export.parts import Part, Runner, Whole

SUFFIX = ".safetensors"


def write(part: Part, path: Path, description: dict[str, Any], *, label: str) -> None:
    """Write the model of a whole part, and model.json beside it."""
    assert isinstance(part.module, Whole)
    model = part.module.model
    save_model(model, model.info, path.parent)


def open_file(part: Part, path: Path) -> Runner:
    """The file as a function of tensors."""
    return Whole(load(str(path)), part.outputs)
