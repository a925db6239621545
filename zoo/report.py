"""report.html: one self-contained page about a run, for a reader who did not train it; and the model card beside it.

It is made from the run's files alone (and the pictures of its data, where they are still there), so that
`python -m zoo report RUN` makes it again.
"""

import base64
import io
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment

from zoo import catalogue, figures
from zoo.artifact import ModelInfo, load, read_info
from zoo.callbacks import read_rows
from zoo.data.errors import DataError
from zoo.errors import UserError
from zoo.evaluate import load_predictions
from zoo.files import write_text
from zoo.models.contract import ZooModel
from zoo.results import LABELS, text
from zoo.results import rows as result_rows
from zoo.runs import Run
from zoo.tasks.evaluation import Predictions

BIG = ("acc", "rmse", "concept_acc", "code_bytes", "izx_bits", "parameters", "latency_ms")


@dataclass
class Section:
    """A heading, a sentence, figures with captions, and pictures of the data."""

    title: str
    text: str
    figures: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)


def write_report(run: Run) -> None:
    """Write report.html and MODEL_CARD.md of a finished run.

    Raises:
        UserError: the run is not finished.
    """
    result = run.result()
    if not result or not run.weights.is_file():
        raise UserError(f"{run} has no result yet: finish it with python -m zoo train resume={run}")
    info, model = read_info(run.weights), load(str(run.weights))
    found = load_predictions(run.folder)
    sections = [_training(run)]
    if found is not None and info.task == "classification":
        sections.append(_answers(run, info, found))
    if "code_bytes" in result["metrics"] and (link := _link(run, info, result["metrics"]["code_bytes"])):
        sections.append(link)
    if info.concept_names:
        sections.append(_concepts(result["metrics"], info, model, found))
    name = catalogue.entry(info.name).title if info.name in catalogue.names() else info.name
    template = Environment(autoescape=True).from_string(files("zoo").joinpath("assets/report.html").read_text())
    metrics = result["metrics"]
    page = template.render(
        title=f"{name} on {info.data}",
        lead=f"{metrics['samples']} test images; the weights are the best of the validation split.",
        big=[(LABELS[key], text(key, metrics[key])) for key in BIG if key in metrics],
        sections=sections,
        table=result_rows(metrics),
        command=" ".join(["python -m zoo train", *run.overrides()]),
        run=str(run),
        small=max(info.preprocessing["image_size"]) < 64,
    )
    write_text(run.report, page)
    from zoo.card import card_of

    write_text(run.card, card_of(run.folder))


def _training(run: Run) -> Section:
    rows = read_rows(run.metrics)
    section = Section("Training", "How the losses and the validation measures went, epoch by epoch.")
    losses = [name for name in ("train/loss", "val/loss") if any(name in row for row in rows)]
    if losses:
        section.figures.append((figures.learning_curves(rows, losses), "loss"))
    measures = [name for name in ("val/acc", "val/concept_acc", "val/mse") if any(name in row for row in rows)]
    if measures:
        section.figures.append((figures.learning_curves(rows, measures), "validation"))
    if any("val/izx_bits" in row and "val/izy_bits" in row for row in rows):
        section.figures.append((figures.plane(rows), "information plane of the validation split"))
    return section


def _answers(run: Run, info: ModelInfo, found: Predictions) -> Section:
    answer = found.prediction.argmax(-1)
    section = Section("Answers", "Which classes are taken for which, and some test images, mistakes first.")
    classes = len(info.class_names)
    if classes <= 60:
        counts = torch.bincount(found.label * classes + answer, minlength=classes * classes)
        matrix = counts.reshape(classes, classes).numpy()
        section.figures.append((figures.confusion(matrix, info.class_names), "confusion on the test split"))
    wrong = (answer != found.label).nonzero().flatten().tolist()
    right = (answer == found.label).nonzero().flatten().tolist()
    for row in [*wrong[:8], *right[: 14 - min(8, len(wrong))]]:
        said, true = info.class_names[answer[row]], info.class_names[found.label[row]]
        caption = said if said == true else f"{said}, truly {true}"
        source = _picture(run, int(found.index[row]))
        if source is not None:
            section.pictures.append({"source": source, "caption": caption, "wrong": said != true})
    return section


def _link(run: Run, info: ModelInfo, sent: float, *, images: int = 64) -> Section | None:
    """Bytes of a message beside those of the same test images as the model sees them, raw and as JPEG."""
    from zoo.data.transforms import Transform
    from zoo.models.split.wire import jpeg_bytes

    datamodule = _data(str(run.folder))
    if datamodule is None:
        return None
    crop = Transform(info.transform).crop
    datamodule.setup("test")
    seen = [crop(datamodule.raw("test", index)) for index in range(min(images, len(datamodule.test_set)))]
    sizes = {"the message": sent, "raw pixels": float(seen[0].numel())}
    for quality in (95, 75, 50):
        sizes[f"JPEG, quality {quality}"] = sum(jpeg_bytes(image, quality) for image in seen) / len(seen)
    saved = 1 - sent / sizes["JPEG, quality 95"]
    verdict = f"{saved:.0%} less than" if saved > 0 else f"{-saved:.0%} more than"
    text = f"A message takes {sent:,.0f} bytes an image, {verdict} the same image as a JPEG of quality 95."
    picture = figures.bars(list(sizes), list(sizes.values()), label=f"bytes an image, mean of {len(seen)} test images")
    return Section("Link", text, [(picture, "what would cross the link instead")])


def _concepts(metrics: dict[str, Any], info: ModelInfo, model: ZooModel, found: Predictions | None) -> Section:
    section = Section(
        "Concepts",
        "What the model names in an image before it decides, how often each name is right, and how the answers improve "
        "when a person corrects the concepts.",
    )
    if per_concept := metrics.get("per_concept"):
        worst = sorted(per_concept.items(), key=lambda item: item[1])[:30]
        picture = figures.bars([name for name, _ in worst], [value for _, value in worst], label="accuracy", limit=1)
        section.figures.append((picture, "concepts, the most often mistaken first"))
    if curve := metrics.get("corrections"):
        section.figures.append((figures.correction_curve(curve), "accuracy as concepts are corrected"))
    matrix = _head_weights(model, info)
    if matrix is not None:
        picture = figures.weights(matrix, info.class_names, info.concept_names)
        section.figures.append((picture, "weight of every concept for every class"))
    return section


def _head_weights(model: ZooModel, info: ModelInfo) -> np.ndarray | None:
    """(M, K) weights of a linear head that reads nothing but the concepts, if the model has one of readable size."""
    head = getattr(model, "head", None)
    layers = [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)] if head is not None else []
    size = (len(info.class_names), len(info.concept_names))
    if len(layers) != 1 or tuple(layers[0].weight.shape) != size or max(size) > 60:
        return None
    return layers[0].weight.detach().numpy()


def _picture(run: Run, index: int) -> str | None:
    """A test image of the run's data as a data: address; None where the data are gone or no images."""
    from PIL import Image

    datamodule = _data(str(run.folder))
    if datamodule is None or datamodule.facts.image_size == (0, 0):
        return None
    array = datamodule.raw("test", index)
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    image.thumbnail((256, 256))
    content = io.BytesIO()
    image.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


_opened: dict[str, Any] = {}


def _data(folder: str) -> Any:
    """The run's data, opened once; None where they are gone."""
    from zoo.build import build_datamodule

    if folder not in _opened:
        try:
            _opened[folder] = build_datamodule(Run(Path(folder)).config())
        except (UserError, DataError):
            _opened[folder] = None
    return _opened[folder]
