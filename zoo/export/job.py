"""One export: files written beside, opened again, compared with the model, and only then moved to their place."""

import copy
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from zoo.benchmarking import interleaved, quantiles
from zoo.errors import CheckFailed, UserError
from zoo.export import onnx, pt2, safetensors
from zoo.export.images import RealImages, real_images
from zoo.export.int8 import quantize_copy
from zoo.export.parity import FLOAT_TOLERANCE, INT8_AGREEMENT, compare, failures
from zoo.export.parts import Part, Runner, parts_of, run_parts
from zoo.files import write_json
from zoo.models.contract import ZooModel
from zoo.runs import Run
from zoo.trained import Described, Trained

FORMATS: dict[str, ModuleType] = {"onnx": onnx, "pt2": pt2, "safetensors": safetensors}
DESCRIPTION = "export.json"


@dataclass(frozen=True)
class Job:
    """What is asked for. out: folder, None is beside the model. tolerance: None is `zoo.export.parity`'s."""

    format: str
    int8: bool = False
    out: Path | None = None
    tolerance: float | None = None

    @property
    def limit(self) -> float:
        return self.tolerance if self.tolerance is not None else (INT8_AGREEMENT if self.int8 else FLOAT_TOLERANCE)


def check_job(job: Job) -> None:
    """
    Raises:
        UserError: a value that no model can be exported with.
        MissingDependency: a package of the format is absent.
    """
    if job.format == "onnx":
        onnx.check_packages()
    if job.tolerance is not None and not job.tolerance >= 0:
        raise UserError(f"--tolerance {job.tolerance:g}: give a number of at least 0")


def check_place(job: Job, trained: Described) -> None:
    """
    Raises:
        UserError: the folder is no place for a model's files.
    """
    _parent(_place(trained, job))


def export(trained: Trained, job: Job, words: Sequence[str] = ()) -> dict[str, Any]:
    """Write a model's files and return what export.json holds, and `folder` and `files`.

    Raises:
        UserError: the folder is no place for them, or 8 bits are asked for and cannot be had.
        MissingDependency: a package of the format is absent.
        CheckFailed: the files do not answer like the model; nothing was written.
    """
    check_job(job)
    folder = _place(trained, job)
    parent = _parent(folder)
    images = real_images(trained, list(words), test=256 if job.int8 else 64, train=256 if job.int8 else 0)
    if job.int8 and job.format == "onnx" and images.train is None:
        raise UserError(f"--int8 reads ranges off training images, and there are none: {images.source}")
    beside = parent / f".{folder.name}.{os.getpid()}.tmp"
    try:
        beside.mkdir()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): give another folder with --out") from None
    try:
        result = _write(trained, job, images, beside)
        moved = _move(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return {"folder": str(Run(folder)), "files": moved, **result}


def _place(trained: Described, job: Job) -> Path:
    name = f"{job.format}-int8" if job.int8 else job.format
    if job.out is None:
        return trained.run.folder / "export" / name if trained.run else Path(f"{trained.info.name}-{name}")
    if (job.out / "config.yaml").is_file():
        raise UserError(f"--out {job.out} is a run: its model would be overwritten; give another folder")
    if job.out.exists() and not job.out.is_dir():
        raise UserError(f"--out {job.out} is a file: give a folder")
    return job.out


def _parent(folder: Path) -> Path:
    """The folder above that is there already.

    Raises:
        UserError: it is none, or cannot be written.
    """
    parent = next(parent for parent in folder.resolve().parents if parent.exists())
    if not parent.is_dir():
        raise UserError(f"--out {folder}: {parent} is a file: give another folder")
    if not os.access(folder if folder.is_dir() else parent, os.W_OK):
        raise UserError(f"{folder} cannot be written: give another folder with --out")
    return parent


def _write(trained: Trained, job: Job, images: RealImages, folder: Path) -> dict[str, Any]:
    """Write and check the files in a temporary folder."""
    model = copy.deepcopy(trained.model).eval()
    split = job.format != "safetensors"
    parts = parts_of(model, images.test[[0, -1]], split=split)
    before = _files(parts, job, trained, folder)
    runners = [FORMATS[job.format].open_file(part, path) for part, path in zip(parts, before)]
    result: dict[str, Any] = {"format": job.format, "int8": job.int8, "checked_on": images.source}
    if not job.int8:
        found = compare(parts, runners, images.test, task=trained.info.task)
        if lines := failures(found, parts, tolerance=job.limit):
            raise CheckFailed("; ".join(lines) + f"; nothing was written (checked on {images.source})")
    else:
        float_size = _bytes(folder)
        changed = _to_int8(model, parts, before, job, trained, images, folder)
        found = compare(parts, changed, images.test, task=trained.info.task)
        result |= _gains(parts, runners, changed, images, float_size, _bytes(folder))
        if found.agreement < job.limit:
            raise CheckFailed(
                f"8 bits agree with the model on {found.agreement:.1%} of {found.images} images (asked for "
                f"{job.limit:.1%}); nothing was written"
            )
    result["parity"] = found.as_dict()
    result = _description(trained, parts) | result
    write_json(folder / DESCRIPTION, result)
    return result


def _files(parts: Sequence[Part], job: Job, trained: Trained, folder: Path) -> list[Path]:
    """Write a file for each part; returns their paths."""
    kind = FORMATS[job.format]
    paths = [folder / f"{part.name}{kind.SUFFIX}" for part in parts]
    for part, path in zip(parts, paths):
        kind.write(part, path, _description(trained, [part]), label=trained.info.name)
    return paths


def _to_int8(
    model: ZooModel,
    parts: Sequence[Part],
    paths: Sequence[Path],
    job: Job,
    trained: Trained,
    images: RealImages,
    folder: Path,
) -> list[Runner]:
    """Replace the float files by 8-bit ones; returns those as functions."""
    if job.format == "onnx":
        from zoo.export.int8_onnx import calibration, quantize_file

        assert images.train is not None
        feeds = calibration(parts, images.train)
        for part, path in zip(parts, paths):
            quantize_file(path, part, feeds[part.name], _description(trained, [part]) | {"int8": "true"})
        changed = parts
    else:
        copied = quantize_copy(model)
        changed = parts_of(copied, images.test[[0, -1]], split=job.format != "safetensors")
        _files(changed, job, trained, folder)
    return [FORMATS[job.format].open_file(part, path) for part, path in zip(changed, paths)]


def _gains(
    parts: Sequence[Part],
    before: Sequence[Runner],
    after: Sequence[Runner],
    images: RealImages,
    size_before: int,
    size_after: int,
) -> dict[str, Any]:
    """Size, accuracy and latency of one image, [before, after] 8 bits, the times measured in turns."""
    image = images.test[:1]
    times = interleaved(
        {"before": lambda: run_parts(parts, image, before), "after": lambda: run_parts(parts, image, after)}
    )
    gains: dict[str, Any] = {
        "bytes": [size_before, size_after],
        "latency_ms": [round(quantiles(times[name])[1], 3) for name in ("before", "after")],
    }
    if images.labels is not None and not images.labels.is_floating_point():
        gains["accuracy"] = [_accuracy(parts, runners, images.test, images.labels) for runners in (before, after)]
    return gains


@torch.no_grad()
def _accuracy(parts: Sequence[Part], runners: Sequence[Runner], images: Tensor, labels: Tensor) -> float:
    answers = [run_parts(parts, chunk, runners)["prediction"].argmax(-1) for chunk in images.split(64)]
    return (torch.cat(answers) == labels).double().mean().item()


def _description(trained: Trained, parts: Sequence[Part]) -> dict[str, Any]:
    """What a user of the files has to know."""
    info = trained.info
    return {
        "name": info.name,
        "task": info.task,
        "data": info.data,
        "class_names": info.class_names,
        "concept_names": info.concept_names,
        "concept_groups": info.concept_groups,
        "preprocessing": info.preprocessing,
        "parts": {
            part.name: {
                "inputs": {name: list(tensor.shape[1:]) for name, tensor in zip(part.inputs, part.example)},
                "outputs": list(part.outputs),
            }
            for part in parts
        },
        "free_axes": {"batch": 0},
        "zoo_version": info.zoo_version,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".json")


def _move(source: Path, target: Path) -> list[str]:
    """Move every file into its place, replacing those of the same names."""
    target.mkdir(parents=True, exist_ok=True)
    names = sorted(path.name for path in source.iterdir())
    for name in names:
        os.replace(source / name, target / name)
    return names
