"""What a trained model is worth on a split: task and concept accuracy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.models.contract import Batch, ZooModel


@dataclass
class Predictions:
    """One row a sample, in the order of the loader, on the CPU.

    prediction: (N, M) logits or values. label: (N,) or (N, T). index: (N,) position in the split.
    concepts, concept_labels: (N, K) in [0, 1], or None where the model does not name the data's concepts.
    diagnostics: means over the split. spoken_for: see `zoo.tasks.concept_evaluation.spoken_for`.
    """

    prediction: Tensor
    label: Tensor
    index: Tensor
    concepts: Tensor | None
    concept_labels: Tensor | None
    diagnostics: dict[str, float]
    spoken_for: Tensor | None = None


@torch.inference_mode()
def predict(model: ZooModel, batches: Iterable[Batch], *, concept_names: Sequence[str] = ()) -> Predictions:
    """Run `model` in evaluation mode over `batches`, whose concept labels are called `concept_names`."""
    model.eval()
    named = bool(concept_names) and tuple(model.concept_names) == tuple(concept_names)
    rows: dict[str, list[Tensor]] = {
        name: [] for name in ("prediction", "label", "index", "concepts", "concept_labels")
    }
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    count = 0
    for batch in batches:
        output = model.forward_batch(batch)
        size = len(batch["index"])
        count += size
        rows["prediction"].append(output.prediction.float())
        rows["label"].append(batch["label"])
        rows["index"].append(batch["index"])
        if named and output.concepts is not None:
            rows["concepts"].append(output.concepts.float())
            rows["concept_labels"].append(batch["concepts"])
        for name, value in model.diagnostics(output, batch).items():
            sums[name] = sums.get(name, 0.0) + float(value.float().mean()) * size
            counts[name] = counts.get(name, 0) + size
    if not count:
        raise ValueError("the split is empty: give it samples, or evaluate another one")
    merged = {name: torch.cat(parts).cpu() if parts else None for name, parts in rows.items()}
    return Predictions(**merged, diagnostics={name: total / counts[name] for name, total in sums.items()})  # type: ignore[arg-type]


def score(found: Predictions, *, task: str, concept_names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Metrics of predictions: `acc` and `balanced_acc`, or `rmse`, `mae` and `r2`; `concept_acc` (mean over concepts),
    `concept_acc_all` (all of a sample's concepts right) and `per_concept`."""
    result: dict[str, Any] = {"samples": len(found.label)}
    if task == "classification":
        right = (found.prediction.argmax(-1) == found.label).float()
        result["acc"] = float(right.mean())
        classes = found.label.unique()
        result["balanced_acc"] = float(torch.stack([right[found.label == c].mean() for c in classes]).mean())
    else:
        value = found.prediction.reshape(found.label.shape)
        error = value - found.label
        result["rmse"] = float(error.square().mean().sqrt())
        result["mae"] = float(error.abs().mean())
        spread = (found.label - found.label.mean(0)).square().mean().clamp_min(1e-12)
        result["r2"] = 1 - float(error.square().mean() / spread)
    if found.concepts is not None and found.concept_labels is not None:
        right = (found.concepts > 0.5) == (found.concept_labels > 0.5)
        result["concept_acc"] = float(right.float().mean())
        result["concept_acc_all"] = float(right.all(-1).float().mean())
        result["per_concept"] = dict(zip(concept_names, right.float().mean(0).tolist()))
    return result | found.diagnostics
