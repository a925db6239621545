"""The figures of a result: metrics of a split, what the concepts are worth, and what an image costs."""

from collections.abc import Iterable
from copy import copy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from zoo.data.contract import Facts
from zoo.data.module import ZooDataModule
from zoo.errors import UserError
from zoo.files import replacing
from zoo.models.concept.base import complete_groups
from zoo.models.contract import Batch, ZooModel
from zoo.tasks.concept_evaluation import encoded, in_batches, measure_concepts, spoken_for
from zoo.tasks.cost import latency_ms, macs, parameter_count
from zoo.tasks.evaluation import Predictions, predict, score


def evaluate(
    model: ZooModel,
    datamodule: ZooDataModule,
    split: str,
    *,
    concepts: bool = True,
    cost: bool = True,
    trained_on: ZooDataModule | str | None = None,
) -> tuple[dict[str, Any], Predictions]:
    """Measure `model` on a split ("val" or "test") of data that are set up.

    Args:
        trained_on: the data whose training split the model learned from, for the sparse heads of the yardstick; or why
            they are not at hand; None means `datamodule`.

    Returns:
        what `zoo.tasks.evaluation.score` gives, for a classifier with `concepts` what
        `zoo.tasks.concept_evaluation.measure_concepts` gives, and with `cost` `parameters`, `macs` and `latency_ms` of
        one image; and the predictions.
    """
    loader = datamodule.val_dataloader() if split == "val" else datamodule.test_dataloader()
    facts = datamodule.facts
    rows = encoded(model, loader) if concepts and facts.task == "classification" and model.concept_names else None
    batches = loader if rows is None else in_batches(rows, loader.batch_size)
    found = predict(model, batches, concept_names=facts.concept_names)
    result = score(found, task=facts.task, concept_names=model.concept_names)
    if rows is not None:
        source = trained_on or datamodule
        result |= measure_concepts(
            model,
            rows,
            num_classes=facts.num_outputs,
            groups=concept_groups(model, facts),
            named="concept_acc" in result,
            train_rows=source if isinstance(source, str) else lambda count: training_rows(source, count),
        )
        found = replace(found, spoken_for=spoken_for(model, rows, num_classes=facts.num_outputs))
    if cost:
        image = torch.zeros(1, *facts.input_shape)
        latency = round(latency_ms(model, image), 3)
        result |= {"parameters": parameter_count(model), "macs": macs(model, image), "latency_ms": latency}
    return result, found


def training_rows(datamodule: ZooDataModule, count: int) -> Iterable[Batch]:
    """At most `count` rows of the training split, not augmented, a random choice that is always the same."""
    datamodule.setup("fit")
    items = datamodule.train_set
    if getattr(items, "augmented", False):
        items = copy(items)
        items.augmented = False
    chosen = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))[:count].tolist()
    return DataLoader(Subset(items, chosen), batch_size=datamodule.batch_size)


def concept_groups(model: ZooModel, facts: Facts) -> tuple[tuple[int, ...], ...]:
    """The concepts that are corrected together: the model's groups, those of data with the same concepts, or each
    alone."""
    same = tuple(model.concept_names) == tuple(facts.concept_names)
    groups = getattr(model, "concept_groups", None) or (facts.concept_groups if same else ())
    return tuple(tuple(members) for _, members in complete_groups(model.concept_names, groups))


def save_predictions(found: Predictions, folder: Path) -> None:
    """predictions.safetensors: a row for each test image, in the order of the split."""
    from safetensors.torch import save_file

    tensors = {f.name: getattr(found, f.name) for f in fields(found) if f.name != "diagnostics"}
    with replacing(folder / "predictions.safetensors") as beside:
        save_file({name: value.contiguous() for name, value in tensors.items() if value is not None}, beside)


def load_predictions(folder: Path) -> Predictions | None:
    """What `save_predictions` wrote, or None.

    Raises:
        UserError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "predictions.safetensors"
    if not path.is_file():
        return None
    try:
        tensors: dict[str, Any] = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({error}): remove it, and the report does without it") from None
    columns: dict[str, Any] = {f.name: tensors.get(f.name) for f in fields(Predictions) if f.name != "diagnostics"}
    return Predictions(**columns, diagnostics={})
