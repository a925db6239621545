"""What of a model becomes a file: the whole, or a split model's head and tail; and running the parts one after another.

Every part is a module from named tensors to a tuple of named tensors, so that all formats treat them alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.models.contract import ZooModel

Runner = Callable[..., tuple[Tensor, ...]]
"""A part as a function: the tensors of its inputs, in order, to those of its outputs."""
IMAGES = "images"
OUTPUTS = ("prediction", "concepts", "code")


@dataclass(frozen=True)
class Part:
    """name: of its file. module: from `inputs` to a tuple of `outputs`. example: a batch of two, (2, ...) each."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]


class Whole(nn.Module):
    """The fields `names` of a model's `Output` as a tuple."""

    def __init__(self, model: ZooModel, names: tuple[str, ...]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output = self.model(images)
        return tuple(getattr(output, name) for name in self.names)


class Half(nn.Module):
    """A head or tail with a tuple for its result."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        result = self.module(*inputs)
        return tuple(result) if isinstance(result, tuple) else (result,)


@torch.no_grad()
def parts_of(model: ZooModel, images: Tensor, *, split: bool = True) -> list[Part]:
    """The parts of a model in evaluation mode; images (2 or more, C, H, W). split: cut a split model at its link."""
    images = images[:2]
    halves = split_of(model) if split else None
    if halves is None:
        output = model(images)
        names = tuple(name for name in OUTPUTS if getattr(output, name) is not None)
        return [Part("model", Whole(model, names), (IMAGES,), names, (images,))]
    head, tail = halves
    message = head(images)
    link = tuple(message._fields)
    return [
        Part("head", Half(head), (IMAGES,), link, (images,)),
        Part("tail", Half(tail), link, ("prediction",), tuple(message)),
    ]


def split_of(model: ZooModel) -> tuple[nn.Module, nn.Module] | None:
    """Head and tail of a model whose `tail(*head(images))` is its prediction."""
    head, tail = getattr(model, "head", None), getattr(model, "tail", None)
    return (head, tail) if isinstance(head, nn.Module) and isinstance(tail, nn.Module) else None


@torch.no_grad()
def run_parts(parts: Sequence[Part], images: Tensor, runners: Sequence[Runner] | None = None) -> dict[str, Tensor]:
    """All tensors by name, from the images on; runners stand in for the parts' own modules."""
    values = {IMAGES: images}
    chosen: Sequence[Runner] = runners or [part.module for part in parts]
    for part, run in zip(parts, chosen):
        values |= zip(part.outputs, run(*(values[name] for name in part.inputs)))
    return values
