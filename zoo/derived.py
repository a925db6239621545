"""A changed model as a new folder beside the one it came from, which stays as it was."""

import copy
import os
import shutil
from pathlib import Path
from typing import Any

from zoo.artifact import read_info, save_model
from zoo.errors import UserError
from zoo.evaluate import evaluate
from zoo.models.contract import ZooModel
from zoo.runs import Run
from zoo.trained import Trained, data_of

CARRIED = ("config.yaml", "overrides.txt", "env.json")
"""What a run's folder needs so that later verbs find its data."""

KINDS = ("edit", "adapt")
"""The verbs that change a trained model, under whose names its description notes what they did."""


def write_derived(trained: Trained, model: ZooModel, *, kind: str, change: dict[str, Any], out: Path | None) -> Run:
    """Write a model that was changed after training; `change` is noted in its description under `kind`.

    out: the new folder; None is the old one's name with `-kind`, and a number where that is taken.

    Raises:
        UserError: the folder is not empty, or cannot be written.
    """
    folder = out or _free(trained, kind)
    check_new(folder)
    info = copy.deepcopy(trained.info)
    info.recipe["arguments"] |= model.fitted_arguments()
    info.extra[kind] = [*info.extra.get(kind, []), change]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}: give another folder") from None
    carried = [trained.run.folder / name for name in CARRIED] if trained.run else []
    for path in carried:
        if path.is_file():
            shutil.copy(path, folder / path.name)
    save_model(model, info, folder)
    return Run(folder)


def is_derived(run: Run) -> bool:
    """Whether a run holds a model that was changed after training."""
    try:
        return run.weights.is_file() and not read_info(run.weights).extra.keys().isdisjoint(KINDS)
    except UserError:  # damaged weights, which a training replaces
        return False


def check_new(folder: Path) -> None:
    """
    Raises:
        UserError: the folder is not empty, or cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder}: there is something already: give a new folder")
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"--out {folder}: no folder can be made in {above}: give another one")


def _free(trained: Trained, kind: str) -> Path:
    base = trained.run.folder if trained.run else Path(trained.info.name)
    names = [base.with_name(f"{base.name}-{kind}{number}") for number in ("", *(f"-{n}" for n in range(2, 1000)))]
    return next(path for path in names if not path.exists())


def accuracies(trained: Trained, *models: ZooModel) -> list[float] | None:
    """Accuracy of each model on the test split of the run's data; None where the data are gone."""
    try:
        datamodule = data_of(trained)
        datamodule.setup("test")
    except (UserError, ValueError):
        return None
    return [evaluate(model, datamodule, "test", concepts=False, cost=False)[0]["acc"] for model in models]


def say(found: Run, accuracy: list[float] | None) -> None:
    """Print where the new model is, and what it is worth."""
    if accuracy is not None:
        before, after = accuracy
        print(f"accuracy on the run's test split: {before:.1%} before, {after:.1%} after")
    print(f"wrote    {found}\nnext     python -m zoo eval {found}")
