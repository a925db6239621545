"""The part of a report that is about concepts, for a reader who wants to know whether to trust them."""

from typing import Any

import numpy as np
import torch
from torch import nn

from zoo import figures
from zoo.artifact import ModelInfo
from zoo.models.contract import ZooModel
from zoo.report_section import Section
from zoo.runs import Run
from zoo.tasks.evaluation import Predictions

MOST = 60
"""Classes or concepts that a table of weights can still be read with."""


def concept_sections(
    run: Run, metrics: dict[str, Any], info: ModelInfo, model: ZooModel, found: Predictions | None
) -> list[Section]:
    """The sections for which there are figures."""
    sections = [
        _accuracy(metrics),
        _confused(run, info, found),
        _classes(info, model, found),
        _corrections(metrics),
        _worth(metrics, len(info.concept_names)),
    ]
    return [section for section in sections if section is not None]


def _accuracy(metrics: dict[str, Any]) -> Section | None:
    per_concept = metrics.get("per_concept")
    if not per_concept:
        return None
    text = (
        f"Before it answers, the model names what it sees; {metrics['concept_acc']:.1%} of these names are right, and "
        f"in {metrics['concept_acc_all']:.1%} of the images all of them are."
    )
    worst = sorted(per_concept.items(), key=lambda item: item[1])[:30]
    picture = figures.bars([name for name, _ in worst], [value for _, value in worst], label="accuracy", limit=1)
    return Section("Concepts", text, [(picture, "share of images in which the concept is named rightly, worst first")])


def _confused(
    run: Run, info: ModelInfo, found: Predictions | None, *, concepts: int = 5, images: int = 3
) -> Section | None:
    """The concepts that are wrong most often, and images where the model was surest of the wrong."""
    if found is None or found.concepts is None or found.concept_labels is None:
        return None
    wrong = (found.concepts > 0.5) != (found.concept_labels > 0.5)
    often = wrong.sum(0)
    worst = [k for k in often.argsort(descending=True, stable=True).tolist() if often[k]][:concepts]
    if not worst:
        return None
    named = ", ".join(f"{info.concept_names[k]} ({int(often[k])})" for k in worst)
    section = Section(
        "Most confused concepts",
        f"These names are wrong most often, of {len(wrong)} images: {named}. Below are the images in which "
        "the model was surest of a wrong name: look whether you would have named them otherwise.",
    )
    for k in worst:
        surest = ((found.concepts[:, k] - 0.5).abs() * wrong[:, k]).argsort(descending=True, stable=True)
        for row in surest[: min(images, int(often[k]))].tolist():
            share = float(found.concepts[row, k])
            name = info.concept_names[k]
            caption = f"{name}: named, not there ({share:.0%})" if share > 0.5 else f"{name}: missed ({share:.0%})"
            section.add_picture(run, int(found.index[row]), caption, wrong=True)
    return section


def _classes(info: ModelInfo, model: ZooModel, found: Predictions | None, *, shown: int = 12) -> Section | None:
    """Charts of the concepts that speak for and against each class."""
    matrix = head_weights(model, (len(info.class_names), len(info.concept_names)))
    what, label = "weight of each concept in the decision", "weight"
    weights = matrix
    if matrix is None:
        if found is None or found.spoken_for is None:
            return None
        matrix = found.spoken_for.numpy()
        what, label = "what each concept added in the test images of the class", "contribution"
    text = "For each class, the concepts that speak most for it (blue, rightwards) and against it (orange, leftwards)"
    text += f"; {shown} of {len(info.class_names)} classes." if len(info.class_names) > shown else "."
    chart = figures.class_charts(matrix[:shown], info.class_names[:shown], info.concept_names, label=label)
    section = Section("What speaks for each class", text, [(chart, what)], wide=True)
    if weights is not None and max(weights.shape) <= MOST:
        table = figures.weights(weights, info.class_names, info.concept_names)
        section.figures.append((table, "all weights at once: classes are rows, concepts are columns"))
    return section


def head_weights(model: ZooModel, shape: tuple[int, int]) -> np.ndarray | None:
    """(M, K) weights of the one linear layer, outside the backbone, that goes from concepts to classes; LaBo's are a
    property."""
    own = getattr(model, "weights", None)
    if isinstance(own, torch.Tensor) and tuple(own.shape) == shape:
        return own.detach().cpu().numpy()
    layers = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not name.startswith("backbone.") and tuple(layer.weight.shape) == shape
    ]
    heads = [name for name, part in model.named_children() if name != "backbone" and _linear_layers(part) > 1]
    if len(layers) != 1 or heads:
        return None
    return layers[0].weight.detach().cpu().numpy()


def _linear_layers(part: nn.Module) -> int:
    return sum(isinstance(layer, nn.Linear) for layer in part.modules())


def _corrections(metrics: dict[str, Any]) -> Section | None:
    curve = metrics.get("corrections")
    if not curve:
        return None
    names = {
        "corrections": "in any order",
        "corrections_uncertain": "the least certain first",
        "corrections_wrong": "set wrongly",
    }
    start, end = curve[0][1], curve[-1][1]
    text = f"When a person corrects all concepts, {end:.1%} of the answers are right instead of {start:.1%}."
    if "acc_all_wrong" in metrics:
        wrong = metrics["acc_all_wrong"]
        heeds = "listens to its concepts" if wrong < start / 2 else "decides largely past its concepts"
        text += f" Told the opposite of the truth of every concept, {wrong:.1%} are still right: this model {heeds}."
    lines = {label: metrics[name] for name, label in names.items() if name in metrics}
    return Section(
        "Correcting concepts", text, [(figures.correction_curves(lines), "accuracy as concepts are set by hand")]
    )


def by_chance(samples: float) -> float:
    """Points by which two accuracies on so many samples may differ without meaning: two standard errors of one half."""
    return 100 / samples**0.5


def _worth(metrics: dict[str, Any], concepts: int) -> Section | None:
    """The yardstick, its control, and leakage."""
    sentences: list[str] = []
    bars: dict[str, float] = {}
    if "acc_nec5" in metrics:
        several = "five" if concepts > 5 else f"all {concepts}"
        sentences.append(_beside_random_directions(metrics, several))
        bars = {
            "as trained": metrics["acc"],
            f"{several} named concepts a class": metrics["acc_nec5"],
            f"{several} random directions a class": metrics["acc_nec5_random"],
        }
    if "leakage" in metrics:
        sentences.append(_leakage(metrics))
    if not sentences:
        return None
    section = Section("What the names are worth", " ".join(sentences))
    if bars:
        picture = figures.bars(list(bars), list(bars.values()), label="accuracy", limit=1)
        section.figures.append((picture, "accuracy on the test images"))
    return section


def _beside_random_directions(metrics: dict[str, Any], several: str) -> str:
    named, random = metrics["acc_nec5"], metrics["acc_nec5_random"]
    gap = 100 * (named - random)
    verdict = (
        f"the names are worth {gap:.1f} points"
        if gap > by_chance(metrics["samples"])
        else "a difference that chance may make, so the names are not shown to be worth more than random directions"
    )
    return (
        f"If a class may lean on {several} named concepts only, {named:.1%} of the answers are right; with as many "
        f"random directions in their place, {random:.1%}: {verdict}."
    )


def _leakage(metrics: dict[str, Any]) -> str:
    points = 100 * metrics["leakage"]
    leaks = (
        f"{points:.1f} points more often from the model's concepts than from the true ones, so they carry "
        "something that their names do not say (leakage)"
        if points > by_chance(min(metrics["samples"], 2000) / 2)
        else "no more often from the model's concepts than from the true ones (no leakage found)"
    )
    return f"A small network tells the class {leaks}."
