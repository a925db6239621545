"""report.html: one self-contained page about a run, for a reader who did not train it; and the model card beside it.

It is made from the run's files alone (and the pictures of its data, where they are still there), so that
`python -m zoo report RUN` makes it again.
"""

import os
from importlib.resources import files
from typing import Any

import torch
from jinja2 import Environment

from zoo import catalogue, figures
from zoo.artifact import ModelInfo, load, read_info
from zoo.card import card_of
from zoo.derived import is_derived
from zoo.errors import UserError
from zoo.evaluate import load_predictions
from zoo.files import write_text
from zoo.metrics_file import read_rows
from zoo.next_steps import to_ask
from zoo.report_concepts import concept_sections
from zoo.report_section import Section, data_of_run
from zoo.results import LABELS, text
from zoo.results import rows as result_rows
from zoo.runs import Run
from zoo.tasks.evaluation import Predictions

BIG = (
    *("acc", "acc_all_wrong", "rmse", "concept_acc", "acc_nec5", "acc_nec5_random"),
    *("code_bytes", "izx_bits", "parameters", "latency_ms"),
)


def write_report(run: Run) -> None:
    """Write report.html and MODEL_CARD.md of a finished run.

    Raises:
        UserError: the run is not finished.
    """
    result = run.result()
    if not result and is_derived(run):
        raise UserError(f"{run}: edit and adapt write no result to report: python -m zoo eval {run} measures the model")
    if not result or not run.weights.is_file():
        raise UserError(f"{run} has no result yet: finish it with python -m zoo train resume={run}")
    if not os.access(run.folder, os.W_OK):
        raise UserError(f"{run}: nothing can be written there: change its permissions, or copy the run")
    info, metrics = read_info(run.weights), result["metrics"]
    name = catalogue.entry(info.name).title if info.name in catalogue.names() else info.name
    page = files("zoo").joinpath("assets/report.html").read_text(encoding="utf-8")
    ask, gives = to_ask(vars(info), str(run))
    template = Environment(autoescape=True).from_string(page)
    filled = template.render(
        title=f"{name} on {info.data}",
        lead=f"{metrics['samples']} test images; the weights are the best of the validation split.",
        big=[(LABELS[key], text(key, metrics[key])) for key in BIG if key in metrics],
        sections=_sections(run, info, metrics),
        table=result_rows(metrics),
        ask=ask,
        gives=gives,
        command=" ".join(["python -m zoo train", *run.overrides()]),
        run=str(run),
        small=max(info.preprocessing["image_size"]) < 64,
    )
    write_text(run.report, filled)
    write_text(run.card, card_of(run.folder))


def _sections(run: Run, info: ModelInfo, metrics: dict[str, Any]) -> list[Section]:
    found = load_predictions(run.folder)
    sections = [_training(run)]
    if found is not None and info.task == "classification":
        sections.append(_answers(run, info, found))
    if "code_bytes" in metrics and (link := _link(run, info, metrics["code_bytes"])):
        sections.append(link)
    if info.concept_names:
        sections += concept_sections(run, metrics, info, load(str(run.weights)), found)
    return sections


def _training(run: Run) -> Section:
    rows = read_rows(run.metrics)
    text = (
        "How far off the model was (its loss, which training makes small) and how often it was right, after each pass "
        "over the training images (epoch). Where only the training images get better, it learns them by heart."
    )
    section = Section("Training", text)
    charts = (
        ("loss", {"train/loss": "on training images", "val/loss": "on validation images"}),
        ("share that is right", {"val/acc": "classes", "val/concept_acc": "concepts"}),
        ("mean squared error", {"val/mse": "on validation images"}),
    )
    for label, wanted in charts:
        if lines := {name: called for name, called in wanted.items() if any(name in row for row in rows)}:
            what = "on the validation images" if label != "loss" else "less is better"
            section.figures.append((figures.learning_curves(rows, lines, label=label), f"{label}, {what}"))
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
        section.add_picture(run, int(found.index[row]), caption, wrong=said != true)
    return section


def _link(run: Run, info: ModelInfo, sent: float, *, images: int = 64) -> Section | None:
    """Bytes of a message beside those of the same test images as the model sees them, raw and as JPEG."""
    from zoo.data.transforms import Transform
    from zoo.models.split.wire import jpeg_bytes

    datamodule = data_of_run(run)
    if datamodule is None:
        return None
    crop = Transform(info.transform).crop
    datamodule.setup("test")
    seen = [crop(datamodule.raw("test", index)) for index in range(min(images, len(datamodule.test_set)))]
    sizes = {"the message": sent, "raw pixels": float(seen[0].numel())}
    for quality in (95, 75, 50):
        sizes[f"JPEG, quality {quality}"] = sum(jpeg_bytes(image, quality) for image in seen) / len(seen)
    others = {"the same image as a JPEG of quality 95": "JPEG, quality 95", "its raw pixels": "raw pixels"}
    verdicts = [f"{_beside(sent, sizes[size])} {name}" for name, size in others.items()]
    text = f"A message takes {sent:,.0f} bytes an image, {' and '.join(verdicts)}."
    label = f"bytes an image, mean of {len(seen)} test images"
    picture = figures.bars(list(sizes), list(sizes.values()), label=label, numbers="{:,.0f}")
    return Section("Link", text, [(picture, "what would cross the link instead")])


def _beside(sent: float, other: float) -> str:
    """How one size stands to another, in words.

    >>> _beside(25, 100), _beside(150, 100), _beside(5, 12288)
    ('75% less than', '50% more than', '1/2,458 of')
    """
    if 0 < 20 * sent < other:
        return f"1/{other / sent:,.0f} of"
    saved = 1 - sent / other
    return f"{saved:.0%} less than" if saved > 0 else f"{-saved:.0%} more than"
