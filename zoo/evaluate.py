"""The figures of a result: metrics of a split, accuracy as concepts are corrected, and what an image costs."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from zoo.data.module import ZooDataModule
from zoo.files import replacing
from zoo.models.contract import ZooModel
from zoo.tasks.cost import latency_ms, macs, parameter_count
from zoo.tasks.evaluation import Predictions, correction_curve, predict, score


def evaluate(
    model: ZooModel, datamodule: ZooDataModule, split: str, *, corrections: bool = True, cost: bool = True
) -> tuple[dict[str, Any], Predictions]:
    """Measure `model` on a split ("val" or "test") of data that are set up.

    Returns:
        what `zoo.tasks.evaluation.score` gives, and with concepts `corrections`: pairs of (groups of concepts set to
        the truth, accuracy); with `cost` also `parameters`, `macs` and `latency_ms` of one image; and the predictions.
    """
    loader = datamodule.val_dataloader() if split == "val" else datamodule.test_dataloader()
    facts = datamodule.facts
    found = predict(model, loader, concept_names=facts.concept_names)
    result = score(found, task=facts.task, concept_names=model.concept_names)
    if corrections and facts.task == "classification" and "concept_acc" in result:
        result["corrections"] = list(correction_curve(model, loader, groups=concept_groups(model)).items())
    if cost:
        image = torch.zeros(1, facts.in_channels, *(facts.image_size if facts.image_size != (0, 0) else ()))
        latency = round(latency_ms(model, image), 3)
        result |= {"parameters": parameter_count(model), "macs": macs(model, image), "latency_ms": latency}
    return result, found


def concept_groups(model: ZooModel) -> tuple[tuple[int, ...], ...]:
    """The concepts that are corrected together: the model's groups, or each alone."""
    groups = getattr(model, "concept_groups", None) or [(name, (k,)) for k, name in enumerate(model.concept_names)]
    return tuple(tuple(members) for _, members in groups)


def save_predictions(found: Predictions, folder: Path) -> None:
    """predictions.safetensors: a row for each test image, in the order of the split."""
    from safetensors.torch import save_file

    tensors = {f.name: getattr(found, f.name) for f in fields(found) if f.name != "diagnostics"}
    with replacing(folder / "predictions.safetensors") as beside:
        save_file({name: value.contiguous() for name, value in tensors.items() if value is not None}, beside)


def load_predictions(folder: Path) -> Predictions | None:
    """What `save_predictions` wrote, or None."""
    from safetensors.torch import load_file

    path = folder / "predictions.safetensors"
    if not path.is_file():
        return None
    tensors: dict[str, Any] = load_file(path)
    columns: dict[str, Any] = {f.name: tensors.get(f.name) for f in fields(Predictions) if f.name != "diagnostics"}
    return Predictions(**columns, diagnostics={})
