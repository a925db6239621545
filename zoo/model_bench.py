"""What models cost to run, each beside a plain network of timm or torch where there is one, measured in turns."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo import catalogue
from zoo.artifact import load
from zoo.benchmarking import interleaved, peak_bytes, quantiles
from zoo.errors import UserError
from zoo.models.contract import ZooModel


@dataclass(frozen=True)
class Subject:
    """A model and the shape of one input, (C, H, W) or (C,)."""

    name: str
    model: ZooModel
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """One model at one batch size.

    milliseconds: 20 %, 50 % and 80 % quantiles of a call. peak_bytes: of the tensors made on the way.
    plain: the network that it is compared with, and `plain_ms`, its median. ratio: plain_ms over our median, above 1
        where ours is faster.
    """

    model: str
    batch: int
    device: str
    milliseconds: tuple[float, float, float]
    images_per_second: float
    peak_bytes: int
    plain: str | None
    plain_ms: float | None
    ratio: float | None


def subject(name: str, *, data: str | None = None) -> Subject:
    """A run's model, or one of the catalogue with random weights on the data that its training command names.

    Raises:
        UserError: there is no such model, or `data` are named for a run.
    """
    if name == "latest" or Path(name).expanduser().exists():
        if data:
            raise UserError(f"--data {data}: {name} has its own sizes: name data for models of the catalogue only")
        model = load(name)
        values = model.info.preprocessing
        size = tuple(values["image_size"])
        return Subject(name, model, (len(values["mean"]), *(size if size != (0, 0) else ())))
    from zoo.build import build_datamodule, create_model
    from zoo.config import compose_config

    command = catalogue.entry(name).command
    named = dict(re.findall(r"\b(data|backbone)=(\S+)", command))
    data = data or named.get("data", "digits")
    datamodule = build_datamodule(compose_config([f"data={data}"]))
    model = create_model(name, data=data, backbone=named.get("backbone"))
    own = getattr(getattr(model, "backbone", None), "preprocessing", None)
    if own is not None:
        datamodule.use_preprocessing(own)
    return Subject(name, model, datamodule.facts.input_shape)


def plain(model: ZooModel, shape: Sequence[int]) -> tuple[str, nn.Module] | None:
    """What a user would run instead: the same network built by timm, a split model's network in one piece, or the
    backbone without what the zoo adds."""
    arguments = model.recipe["arguments"]
    if model.recipe["target"] == "zoo.models.vision.timm.Timm":
        import timm

        network = timm.create_model(arguments["name"], num_classes=arguments["num_outputs"], in_chans=shape[0])
        return f"timm's {arguments['name']}", network
    teacher = getattr(model, "teacher", None)
    if teacher is not None and hasattr(teacher, "stem") and hasattr(teacher, "tail"):
        return f"{arguments['network']} in one piece", nn.Sequential(teacher.stem, teacher.tail)
    backbone = getattr(model, "backbone", None)
    return ("its backbone alone", backbone) if isinstance(backbone, nn.Module) else None


@torch.inference_mode()
def measure(
    found: Subject, batches: Sequence[int], *, device: str = "cpu", rounds: int = 30, budget_s: float = 5.0
) -> Iterator[Measured]:
    """Measure a model at each batch size.

    Raises:
        UserError: this machine has no such device, or its memory does not hold a batch.
    """
    check_device(device)
    model = found.model.to(device).eval()
    beside = plain(model, found.shape)
    for batch in batches:
        try:
            images = torch.rand(batch, *found.shape, device=device)
            calls: dict[str, Callable[[], Any]] = {"ours": partial(model, images)}
            if beside is not None:
                calls["plain"] = partial(beside[1].to(device).eval(), images)
            times = interleaved(calls, rounds=rounds, budget_s=budget_s, device=device)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise UserError(f"--batch {batch}: does not fit into the memory of {device}: give less") from None
            raise
        ours = quantiles(times["ours"])
        other = quantiles(times["plain"])[1] if beside else None
        yield Measured(
            model=found.name,
            batch=batch,
            device=device,
            milliseconds=ours,
            images_per_second=batch / ours[1] * 1e3,
            peak_bytes=peak_bytes(calls["ours"], device=device),
            plain=beside[0] if beside else None,
            plain_ms=other,
            ratio=other / ours[1] if other else None,
        )


def check_device(device: str) -> None:
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("computes nothing")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--device {device}: {reason}; this machine has cpu{_accelerators()}") from None


def _accelerators() -> str:
    return "".join(f", cuda:{index}" for index in range(torch.cuda.device_count()))
