"""Images of the user through a trained model: which files, read how, and what the model says of each in words."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.artifact import ModelInfo
from zoo.data.concept_tables import shorten
from zoo.data.errors import ImageError
from zoo.data.transforms import SUFFIXES, Transform, is_image, load_image
from zoo.errors import UserError, suggest
from zoo.models.contract import Batch, Output
from zoo.trained import Trained

ADVICE = "replace or remove it, or add --skip"
MOST = 20
"""Lines of mistakes about images at once."""


def find_images(words: Sequence[str], *, skip: bool = False, advice: str = ADVICE) -> list[Path]:
    """The files that paths, folders (all images below) and wildcards name, each once, in the order given.

    Without `skip` a look at the first bytes of each file comes first; only where something is wrong are all files
    decoded, so that whatever is wrong is told at once.

    Raises:
        UserError: a line for each word that names none and, without `skip`, for each file that is no image.
    """
    found: list[Path] = []
    wrong = []
    for word in words:
        path = Path(word).expanduser()
        if not word:
            wrong.append("'': there is no image without a name")
        elif path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            wrong += [] if inside else [f"{word}: the folder holds no images ({', '.join(sorted(SUFFIXES))})"]
            found += inside
        elif path.exists():
            found.append(path)
        else:
            matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
            wrong += [] if matches else [f"{word}: there is no such image, folder or match"]
            found += [match for match in matches if match.is_file()]
    paths = list(dict.fromkeys(found))
    if not skip and (wrong or not all(map(is_image, paths))):
        wrong += [f"{line}; {advice}" for path in paths if (line := _read(path)[1])]
    if wrong:
        raise UserError(*shorten(wrong, limit=MOST))
    return paths


def _read(path: Path) -> tuple[Tensor | None, str]:
    """The image (uint8), or why there is none."""
    try:
        return load_image(path), ""
    except ImageError as error:
        return None, str(error).rpartition("; ")[0]


def transform_of(info: ModelInfo) -> Transform:
    """What an image goes through first.

    Raises:
        UserError: the model reads rows of a table.
    """
    if tuple(info.preprocessing["image_size"]) == (0, 0):
        raise UserError(
            f"{info.name} on {info.data} reads rows of a table, not images: measure it with python -m zoo eval"
        )
    return Transform(info.transform)


def read_images(paths: Sequence[Path], transform: Transform) -> tuple[dict[Path, Tensor], list[str]]:
    """The readable images as the model sees them, (C, H, W), and a line for each file that is none."""
    images, unreadable = {}, []
    for path in paths:
        image, line = _read(path)
        if image is None:
            unreadable.append(line)
        else:
            images[path] = transform(image)
    return images, unreadable


@torch.inference_mode()
def predict_files(
    trained: Trained, paths: Sequence[Path], *, skip: bool = False, batch_size: int = 64
) -> tuple[list[dict[str, Any]], list[str]]:
    """What the model says of each file, in order: dictionaries as `in_words` makes them, with `image`; and a line for
    each file that was skipped.

    Raises:
        UserError: unreadable files and no `skip`, a line each; or none can be read.
    """
    transform = transform_of(trained.info)
    answers, skipped = [], []
    for begin in range(0, len(paths), batch_size):
        images, unreadable = read_images(paths[begin : begin + batch_size], transform)
        skipped += unreadable
        if images and (skip or not skipped):
            output = trained.model(torch.stack(list(images.values())))
            rows = in_words(output, trained.info)
            answers += [{"image": str(path), **row} for path, row in zip(images, rows)]
    if skipped and not (skip and answers):
        advice = "give another file" if skip else ADVICE
        raise UserError(*shorten((f"{line}; {advice}" for line in skipped), limit=MOST))
    return answers, skipped


def check_folder(folder: Path) -> None:
    """
    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")


def labelled_images(folder: Path, info: ModelInfo, *, skip: bool = False, batch_size: int = 64) -> list[Batch]:
    """Images of the model's classes, from folder/<class>/*, as batches.

    Raises:
        UserError: a line for each mistake: no such folder, no class in it, a folder of another name, unreadable files.
    """
    check_folder(folder)
    transform = transform_of(info)
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    known = info.class_names
    others = [path for path in inside if path.name not in known]
    wrong = [f"{path}: no class of the model: {suggest(path.name, known)}" for path in others]
    if not inside:
        wrong = [f"{folder}: holds no folder of a class ({', '.join(known[:4])}, ...)"]
    pictures: list[Tensor] = []
    labels: list[int] = []
    for path in inside if not wrong else []:
        try:
            images, unreadable = read_images(find_images([str(path)], skip=True), transform)
        except UserError as error:
            wrong += error.lines
            continue
        wrong += [] if skip else [f"{line}; {ADVICE}" for line in unreadable]
        pictures += images.values()
        labels += [known.index(path.name)] * len(images)
    if not wrong and not pictures:
        wrong = [f"{folder}: none of its files can be read: give images"]
    if wrong:
        raise UserError(*shorten(wrong, limit=MOST))
    rows = torch.arange(len(labels)).split(batch_size)
    stacked, label = torch.stack(pictures), torch.tensor(labels)
    return [{"image": stacked[row], "label": label[row], "index": row} for row in rows]


def in_words(output: Output, info: ModelInfo, *, classes: int = 3) -> list[dict[str, Any]]:
    """One dictionary an image: `class`, `probability` and `classes` (the most probable ones), or `values` in
    regression; `concepts`, name to probability, where the model has them."""
    answers: list[dict[str, Any]] = []
    for row in output.prediction.float():
        if info.task == "regression":
            answers.append({"values": dict(zip(info.class_names, row.tolist()))})
            continue
        value, index = row.softmax(-1).topk(min(classes, len(row)))
        likely = {info.class_names[i]: p for p, i in zip(value.tolist(), index.tolist())}
        answers.append({"class": next(iter(likely)), "probability": value[0].item(), "classes": likely})
    if output.concepts is not None and info.concept_names:
        for answer, row in zip(answers, output.concepts.float().tolist()):
            answer["concepts"] = dict(zip(info.concept_names, row))
    return answers


def present(concepts: dict[str, float], *, limit: int = 6) -> str:
    """The concepts above one half, the surest first, as a person reads them."""
    sure = sorted((name for name, value in concepts.items() if value > 0.5), key=lambda name: -concepts[name])
    return ", ".join(sure[:limit]) + (f" and {len(sure) - limit} more" if len(sure) > limit else "")
