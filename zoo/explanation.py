"""Why a model answers as it does for one image: which concepts spoke for the answer, and what it would be were one of
them otherwise; without concepts, where in the image it was read."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.artifact import ModelInfo
from zoo.build import locate
from zoo.errors import UserError
from zoo.files import replacing
from zoo.inference import in_words
from zoo.models.contract import Intervention, Output, ZooModel
from zoo.occlusion import Occlusion, in_a_line, occlude
from zoo.trained import Trained, concept_index

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Explanation:
    """What `explain` found for one image.

    answer: in words, see `zoo.inference.in_words`; corrected: the same after the user's corrections, or None.
    about: the class (or target) that the contributions speak for: the one that is predicted in the end.
    contributions: concept name -> what it adds to that class's logit. method: how they were found.
    places: concept name -> where it was found, as shares of the height and the width of what the model sees; empty
        where the model does not say. set_to: concept name -> the value that the user gave it. sent: what left the
        device, of a model whose concepts cross a link (`zoo.models.concept.concept_split`).
    """

    answer: dict[str, Any]
    corrected: dict[str, Any] | None
    about: str
    contributions: dict[str, float]
    method: str
    places: dict[str, tuple[float, float]] = field(default_factory=dict)
    set_to: dict[str, float] = field(default_factory=dict)
    sent: dict[str, Any] = field(default_factory=dict)


@dataclass
class Reading:
    """What `explain_reading` found for one image.

    answer: in words, see `zoo.inference.in_words`. occlusion: where in the image it was read.
    """

    answer: dict[str, Any]
    occlusion: Occlusion


def check_explainable(info: ModelInfo) -> None:
    """Let models with concepts or classes through.

    Raises:
        UserError: the model has neither; the line says what it offers instead.
    """
    if info.concept_names:
        return
    if instead := getattr(locate(info.recipe["target"]), "instead_of_training", ""):
        raise UserError(f"{info.name} cannot be explained: {instead}")
    if info.task != "classification":
        raise UserError(
            f"{info.name} on {info.data} has neither concepts nor classes: python -m zoo predict shows values"
        )


def corrections(words: list[str], info: ModelInfo) -> Intervention | None:
    """`concept=value` pairs as an intervention.

    Raises:
        UserError: a line for each that is unreadable, unknown or beyond 0 and 1; one where there are no concepts.
    """
    if words and not info.concept_names:
        raise UserError(f"{info.name} names no concepts: there is nothing to --set")
    mask, values = torch.zeros(len(info.concept_names), dtype=torch.bool), torch.zeros(len(info.concept_names))
    wrong = []
    for word in words:
        name, _, text = word.rpartition("=")
        try:
            if "=" in name and name not in info.concept_names:
                raise UserError("write --set once for each concept")
            index = concept_index(info, name) if name else None
            value = float(text)
            if index is None or not 0 <= value <= 1:
                raise ValueError
            if mask[index]:
                raise UserError(f"{name} is set twice: say it once")
            mask[index], values[index] = True, value
        except UserError as error:
            wrong += [f"--set {word}: {line}" for line in error.lines]
        except ValueError:
            wrong.append(f"--set {word}: write concept=value with a value from 0 (absent) to 1 (present)")
    if wrong:
        raise UserError(*wrong)
    return Intervention(mask, values) if words else None


def explain(trained: Trained, image: Tensor, intervene: Intervention | None = None) -> Explanation:
    """Explain the answer for one image (C, H, W), as the model sees it."""
    return explain_features(trained, features_of(trained.model, image), intervene)


@torch.inference_mode()
def explain_reading(trained: Trained, image: Tensor) -> Reading:
    """Where the answer for one image (C, H, W), as the model sees it, was read; of a model with classes."""
    model, info = trained.model, trained.info
    image = image.to(next(model.parameters()).device)
    grey = 0.0 if any(info.transform.mean) else image.mean((1, 2), keepdim=True)
    found = occlude(lambda images: model(images).prediction, image, grey=grey)
    return Reading(in_words(model(image[None]), info)[0], found)


@torch.inference_mode()
def features_of(model: ZooModel, image: Tensor) -> Tensor:
    """What the backbone makes of one image (C, H, W), as a batch of one."""
    return model.backbone(image[None])


def explain_features(
    trained: Trained, features: Tensor, intervene: Intervention | None = None, *, classes: int = 3
) -> Explanation:
    """Explain the answer for what `features_of` made of an image, naming so many of the most probable classes."""
    model, info = trained.model, trained.info
    with torch.inference_mode():
        original = model.forward_features(features)
        corrected = None if intervene is None else model.forward_features(features, intervene)
    final = original if corrected is None else corrected
    winner = int(final.prediction[0].argmax()) if info.task == "classification" else 0
    values, method = _contributions(model, features, final, intervene)
    return Explanation(
        answer=in_words(original, info, classes=classes)[0],
        corrected=None if corrected is None else in_words(corrected, info, classes=classes)[0],
        about=info.class_names[winner],
        contributions=dict(zip(info.concept_names, values[:, winner].tolist())),
        method=method,
        places=_places(original, info),
        set_to=_set_to(intervene, info),
        sent=model.sent(original) if hasattr(model, "sent") else {},  # type: ignore[operator]
    )


def _set_to(intervene: Intervention | None, info: ModelInfo) -> dict[str, float]:
    if intervene is None:
        return {}
    given = zip(info.concept_names, intervene.mask.tolist(), intervene.values.tolist())
    return {name: round(value, 6) for name, masked, value in given if masked}


def size_sent(sent: dict[str, Any]) -> str:
    """How many bytes left the device, in words."""
    size, sparse = sent["size"], sent["size_sparse"]
    shorter = f", {sparse} with absent concepts left out" if sparse < size else ""
    return f"{size} byte{'s' if size != 1 else ''} (0x{sent['bytes']}{shorter})"


def levels_sent(sent: dict[str, Any], called: Callable[[str], str] = str) -> list[str]:
    """What the bytes say, a level of each concept, in words; those at 0 in one. called: how a name is written."""
    told = [f"{called(name)} {level}/{top}" for name, (level, top) in sent["levels"].items() if level]
    absent = len(sent["levels"]) - len(told)
    return [*told, *([f"0 for {'the other' if told else 'all'} {absent}"] if absent else [])]


def _places(output: Output, info: ModelInfo) -> dict[str, tuple[float, float]]:
    if "concept_places" not in output.extras:
        return {}
    rows = output.extras["concept_places"][0].tolist()
    return {name: (row, column) for name, (row, column) in zip(info.concept_names, rows)}


@torch.no_grad()
def _contributions(
    model: ZooModel, features: Tensor, output: Output, intervene: Intervention | None
) -> tuple[Tensor, str]:
    """(K, M), and how they were found: by the model's own account, or by switching each concept off."""
    own = getattr(model, "contributions", None)
    if own is not None:
        return own(output)[0].float(), "weight x activation of the concept in the head"
    return effects(model, features, output, intervene), "logit as it is, minus the logit with the concept set to absent"


@torch.no_grad()
def effects(model: ZooModel, features: Tensor, output: Output, intervene: Intervention | None = None) -> Tensor:
    """(K, M): how much every logit falls when a person sets one concept to absent, on top of `intervene`."""
    size = len(model.concept_names)
    mask, values = torch.eye(size, dtype=torch.bool), torch.zeros(size, size)
    if intervene is not None:
        mask = mask | intervene.mask
        values = torch.where(torch.eye(size, dtype=torch.bool), 0.0, intervene.values.expand(size, -1))
    without = model.forward_features(features.expand(size, *features.shape[1:]), Intervention(mask, values)).prediction
    return (output.prediction - without).float()


def check_picture(path: Path) -> None:
    """
    Raises:
        UserError: the file cannot be written there, or its ending names no format.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    reason = ""
    if path.is_dir():
        reason = "Is a directory"
    elif path.suffix and path.suffix[1:].lower() not in formats:
        reason = f"no picture is written as {path.suffix}"
    elif not path.parent.is_dir():
        reason = f"there is no folder {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        reason = f"nothing can be written in {path.parent.absolute()}"
    if reason:
        raise UserError(f"--out {path}: {reason}; give a file such as why.png in a folder that is there")


def save_picture(path: Path, found: Explanation | Reading, picture: Tensor) -> str:
    """The image (uint8, (C, H, W)) beside a bar chart of the contributions, marked where a present concept was found;
    concepts that were set stand on top, with a mark, what was seen and what was set. Of a `Reading`, the image beside
    itself under a map of the drops.

    picture: with places or drops, what the model sees of the image.

    Returns:
        the letters of names that no installed font has; names or codes stand in their place.

    Raises:
        UserError: the file cannot be written.
    """
    from zoo.figures import matplotlib, plt
    from zoo.lettering import lettering

    named = [] if isinstance(found, Reading) else [found.about, *found.contributions]
    letters = lettering([headline(found), *named])
    with matplotlib.rc_context({"font.family": letters.families}):
        figure = (
            _draw_reading(found, picture, letters) if isinstance(found, Reading) else _draw(found, picture, letters)
        )
    try:
        with replacing(path) as beside, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(beside, format=path.suffix[1:].lower() or "png", dpi=150)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"--out {path}: {reason}; give a file such as why.png in a folder that is there") from None
    finally:
        plt.close(figure)
    return "".join(sorted(letters.absent))


def _draw(found: Explanation, picture: Tensor, written: Callable[[str], str]) -> "Figure":
    from zoo.figures import contributions, plt

    names, seen = list(found.contributions), found.answer["concepts"]
    changed = {names.index(name): f"{seen[name]:.0%} \u2192 {value:.0%}" for name, value in found.set_to.items()}
    height = 0.8 + 0.27 * max(8, min(len(names), 15 + len(changed)))
    figure, (shown, bars) = plt.subplots(
        1, 2, figsize=(height + 6.5, height), width_ratios=(height, 6.5), layout="constrained"
    )
    contributions(bars, [*map(written, names)], list(found.contributions.values()), changed=changed)
    note = "\n\u25c6 set by hand: seen \u2192 set to" if changed else ""
    bars.set_xlabel(f"contribution to {written(found.about)}{note}")
    shown.imshow(picture.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="nearest")
    for (row, column), present in marks(found).items():
        place = (column * picture.shape[2] - 0.5, row * picture.shape[1] - 0.5)
        shown.plot(*place, marker="o", markersize=9, fillstyle="none", color="#e07a5f", markeredgewidth=2)
        text = "\n".join(map(written, present))
        shown.annotate(text, place, (0, 7), textcoords="offset points", ha="center", color="#e07a5f", fontsize=8)
    shown.set_axis_off()
    figure.suptitle(written(headline(found)), x=0.01, ha="left", fontsize=11)
    return figure


def _draw_reading(found: Reading, picture: Tensor, written: Callable[[str], str]) -> "Figure":
    from zoo.figures import occlusion, plt

    figure, (shown, hidden) = plt.subplots(1, 2, figsize=(8.6, 4.2), layout="constrained")
    pixels = picture.permute(1, 2, 0).expand(-1, -1, 3).numpy()
    shown.imshow(pixels, interpolation="nearest")
    shown.set_axis_off()
    occlusion(hidden, pixels, found.occlusion)
    figure.suptitle(f"{written(headline(found))}\n{in_a_line(found.occlusion)}", x=0.01, ha="left", fontsize=11)
    return figure


def marks(found: Explanation, most: int = 5) -> dict[tuple[float, float], list[str]]:
    """Place -> the concepts found there: of the present ones those that speak most for or against the answer."""
    present = [name for name in found.places if found.answer["concepts"][name] >= 0.5]
    marked: dict[tuple[float, float], list[str]] = {}
    for name in sorted(present, key=lambda name: -abs(found.contributions[name]))[:most]:
        marked.setdefault(found.places[name], []).append(name)
    return marked


def headline(found: Explanation | Reading) -> str:
    """The answer, and the corrected one, in a line."""
    if isinstance(found, Reading):
        return _said(found.answer)
    return _said(found.answer) + (f", corrected: {_said(found.corrected)}" if found.corrected else "")


def _said(answer: dict[str, Any]) -> str:
    if "values" in answer:
        return ", ".join(f"{name} {value:.4g}" for name, value in answer["values"].items())
    return f"{answer['class']} ({answer['probability']:.1%})"
