"""The figures of a result: metrics of a split, accuracy as concepts are corrected, and what an image costs."""

from typing import Any

import torch

from zoo.data.module import ZooDataModule
from zoo.models.contract import ZooModel
from zoo.tasks.cost import latency_ms, macs, parameter_count
from zoo.tasks.evaluation import correction_curve, predict, score


def evaluate(
    model: ZooModel, datamodule: ZooDataModule, split: str, *, corrections: bool = True, cost: bool = True
) -> dict[str, Any]:
    """Measure `model` on a split ("val" or "test") of data that are set up.

    Returns:
        what `zoo.tasks.evaluation.score` gives, and with concepts `corrections`: accuracy after 0, 1, ... groups of
        concepts were set to the truth; with `cost` also `parameters`, `macs` and `latency_ms` of one image.
    """
    loader = datamodule.val_dataloader() if split == "val" else datamodule.test_dataloader()
    facts = datamodule.facts
    result = score(predict(model, loader), task=facts.task, concept_names=model.concept_names)
    if corrections and facts.task == "classification" and "concept_acc" in result:
        groups = tuple(indices for _, indices in facts.concept_groups) or tuple(
            (k,) for k in range(len(model.concept_names))
        )
        result["corrections"] = correction_curve(model, loader, groups=groups)
    if cost:
        image = torch.zeros(1, facts.in_channels, *(facts.image_size if facts.image_size != (0, 0) else ()))
        latency = round(latency_ms(model, image), 3)
        result |= {"parameters": parameter_count(model), "macs": macs(model, image), "latency_ms": latency}
    return result
