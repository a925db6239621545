"""What a model's concepts are worth: corrections, leakage, the yardstick, and what speaks for each class."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.models.contract import Batch, ZooModel
from zoo.tasks.metrics.causal_effect import CausalConceptEffect
from zoo.tasks.metrics.intervention_curve import InterventionCurve
from zoo.tasks.metrics.leakage import ConceptLeakage
from zoo.tasks.sparse_yardstick import rows_to_fit, scored, sparse_yardstick

ROWS = 2000
"""Evaluated rows, chosen at random, that corrections and leakage are measured on at most."""
COSTLY_ROWS, COSTLY_POINTS, COSTLY_TRIALS = 300, 5, 1
"""The same, and of a correction curve, for a model whose prediction is an optimisation."""
EFFECT_ROWS = 200
"""The same where every concept is switched on and off for every row."""
POINTS, TRIALS = 9, 3
"""Of a correction curve: numbers of corrected groups at most, and random orders."""
CELLS = 100_000
"""Concepts times classes above which no table of both is made."""
ALONE: dict[str, Any] = {"sync_on_compute": False}
"""Of the metrics here: one process measures, and the others of its training may be gone."""

TrainRows = Callable[[int], Iterable[Batch]]


@torch.no_grad()
def encoded(model: ZooModel, batches: Iterable[Batch]) -> Batch:
    """A whole split as one batch, with the backbone's features in place of images; on the CPU.

    Raises:
        ValueError: there is no batch.
    """
    model.eval()
    parts = [model.with_features(batch) for batch in batches]
    if not parts:
        raise ValueError("the split is empty: give it samples, or evaluate another one")
    return {key: torch.cat([part[key] for part in parts]).cpu() for key in parts[0]}


def in_batches(rows: Batch, size: int | None = None) -> Iterator[Batch]:
    """One large batch as small ones, of 1,024 unless `size` says otherwise."""
    size = size or 1024
    for start in range(0, len(rows["label"]), size):
        yield {key: value[start : start + size] for key, value in rows.items()}


def some(rows: Batch, most: int, *, seed: int = 0) -> Batch:
    """At most `most` rows, chosen at random."""
    count = len(rows["label"])
    if count <= most:
        return rows
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]
    return {key: value[chosen] for key, value in rows.items()}


def measure_concepts(
    model: ZooModel,
    rows: Batch,
    *,
    num_classes: int,
    groups: Sequence[Sequence[int]],
    named: bool,
    train_rows: TrainRows | str,
) -> dict[str, Any]:
    """All figures of a classifier's concepts.

    Args:
        rows: the evaluated split, as `encoded` gives it.
        groups: concepts that are corrected together.
        named: the rows' concept labels are the model's concepts; without, only the yardstick can be measured.
        train_rows: so many training rows as batches, or why there are none.

    Returns:
        where `named`: `acc_all_wrong`, `correction_gain`, `leakage`, and the curves `corrections`,
        `corrections_uncertain` and `corrections_wrong` as pairs of (groups set, accuracy); `acc_nec5` and
        `acc_nec5_random`, or `not_measured`: name -> reason.
    """
    result: dict[str, Any] = {}
    if named:
        result |= corrections(model, rows, groups) | {"leakage": leakage(model, rows)}
    return result | yardstick(model, rows, num_classes=num_classes, train_rows=train_rows)


def corrections(model: ZooModel, rows: Batch, groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Accuracy as groups are set to the truth, in random order and the least certain first, or to the untruth."""
    model.eval()
    most, points, trials = (COSTLY_ROWS, COSTLY_POINTS, COSTLY_TRIALS) if model.costly else (ROWS, POINTS, TRIALS)
    curves = {
        "corrections": InterventionCurve(groups, trials=trials, points=points, **ALONE),
        "corrections_uncertain": InterventionCurve(groups, policy="uncertain", points=points, **ALONE),
        "corrections_wrong": InterventionCurve(
            groups, wrong=True, trials=1, points=2 if model.costly else points, **ALONE
        ),
    }
    for batch in in_batches(some(rows, most)):
        for metric in curves.values():
            metric.update(model, batch)
    pairs = {name: list(zip(m.counts, m.compute()["accuracy"].tolist())) for name, m in curves.items()}
    truth, untruth = pairs["corrections"], pairs["corrections_wrong"]
    return {"acc_all_wrong": untruth[-1][1], "correction_gain": truth[-1][1] - truth[0][1], **pairs}


def leakage(model: ZooModel, rows: Batch) -> float:
    """See `ConceptLeakage`; what the head sees is the latent, or the concepts of a model without one."""
    metric = ConceptLeakage(**ALONE)
    for batch in in_batches(some(rows, ROWS)):
        with torch.no_grad():
            output = model.forward_batch(batch)
        seen = output.concepts if output.latent is None else output.latent
        assert seen is not None
        metric.update(seen, batch["concepts"], batch["label"])
    return float(metric.compute()["leakage"])


def yardstick(model: ZooModel, rows: Batch, *, num_classes: int, train_rows: TrainRows | str) -> dict[str, Any]:
    """`acc_nec5` and its control, or why they are not measured."""
    try:
        if isinstance(train_rows, str):
            raise ValueError(train_rows)
        wanted = rows_to_fit(len(model.concept_names), num_classes)
        train = scored(model, in_batches(encoded(model, train_rows(wanted))))
        return sparse_yardstick(train, scored(model, in_batches(rows)), num_classes=num_classes)
    except ValueError as error:
        return {"not_measured": {"acc_nec5": str(error)}}


def spoken_for(model: ZooModel, rows: Batch, *, num_classes: int) -> Tensor | None:
    """(M, K): how much every concept spoke for class m in the images of class m.

    The mean of `model.contributions` over them; of a model without that, by how much setting the concept raises the
    probability of the class. None where there are too many cells to look at, or setting each concept costs too much.
    """
    count = len(model.concept_names)
    own = getattr(model, "contributions", None)
    if count * num_classes > CELLS or (own is None and model.costly):
        return None
    if own is None:
        effect = CausalConceptEffect(model.concept_names, [str(label) for label in range(num_classes)], **ALONE)
        for batch in in_batches(some(rows, EFFECT_ROWS)):
            effect.update(model, batch)
        return effect.compute().mT
    sums, images = torch.zeros(num_classes, count), torch.zeros(num_classes, 1)
    for batch in in_batches(some(rows, ROWS), 64):
        label = batch["label"]
        with torch.no_grad():
            given = own(model.forward_batch(batch))[torch.arange(len(label)), :, label]
        sums.index_add_(0, label, given.float())
        images.index_add_(0, label, torch.ones(len(label), 1))
    return sums / images.clamp_min(1)
