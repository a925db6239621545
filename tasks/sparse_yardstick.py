"""The yardstick that all concept models share: accuracy at NEC 5, beside that of random directions.

Srivastava, Yan, Weng, VLG-CBM, NeurIPS 2024, arXiv 2408.01432. A dense head on many concepts learns a label from
anything, random directions included, so plain accuracies of two concept models cannot be compared. Here every model
gets the same sparse head, on its concept scores instead of its own head:

    scores of training rows, standardised --GLM-SAGA path--> first head with 5 non-zero weights a class on average,
    truncated to exactly that, its bias kept --> accuracy on the evaluated rows

and so do as many random unit directions in the same backbone's features. What the names are worth is the difference.

Classes that fewer weights tell apart get fewer: the path ends where NEC no longer rises, and its last head is measured.
With K <= 5 concepts there is nothing to leave out: both figures are then those of a head on all K scores, at a path's
weakest penalty, and say less.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.models.concept.bank import random_bank
from zoo.models.concept.glm_saga import SparseHead, elastic_net, max_regularisation
from zoo.models.concept.nec import FACTOR, head_at, regularisation_path
from zoo.models.contract import Batch, Output, ZooModel

EFFECTIVE = 5
"""Non-zero weights a class, on average."""
ROWS = 2000
"""Training rows that fit a head, at most."""
ROWS_A_CLASS = 5
"""Fewer on average cannot fit one."""
WORK = 5e7
"""Rows x concepts x classes, at most: a path then takes seconds on two cores."""
PENALTIES = 60
"""Of a path, each 2^-0.1 of the one before."""
WEAKEST = FACTOR**PENALTIES
"""The last of them as a share of the largest, 1/64: where 5 is not reached by then, accuracy hardly moves any more."""
DRAWS = 3
"""Sets of random directions; their mean accuracy is the control."""


@dataclass(frozen=True)
class Scored:
    """Rows of a split: concept scores (N, K), the backbone's features (N, D), classes (N,)."""

    scores: Tensor
    features: Tensor
    labels: Tensor


def rows_to_fit(concepts: int, classes: int) -> int:
    """How many training rows the yardstick takes.

    Raises:
        ValueError: so few that no head can be fitted, since classes times concepts are too many for a short look.
    """
    rows = min(ROWS, int(WORK // (concepts * classes)))
    if rows < ROWS_A_CLASS * classes:
        raise ValueError(
            f"{concepts:,} concepts for {classes:,} classes take longer than an evaluation may: call "
            "zoo.models.concept.nec.accuracy_at_nec"
        )
    return rows


def concept_scores(output: Output, concepts: int) -> Tensor:
    """(B, K): what the head sees where it sees one number a concept, else the predicted concepts."""
    latent = output.latent
    if latent is not None and latent.dim() == 2 and latent.shape[1] == concepts:
        return latent.float()
    if output.concepts is None:
        raise ValueError("the model returns no concepts")
    return output.concepts.float()


@torch.inference_mode()
def scored(model: ZooModel, batches: Iterable[Batch]) -> Scored:
    """Run the model over batches of features.

    Raises:
        ValueError: the model returns no concepts, or there is no batch.
    """
    model.eval()
    parts = [
        (concept_scores(model.forward_batch(batch), len(model.concept_names)), batch["features"], batch["label"])
        for batch in batches
    ]
    if not parts:
        raise ValueError("there are no rows")
    scores, features, labels = (torch.cat(columns).cpu() for columns in zip(*parts))
    return Scored(scores, features.flatten(1).float(), labels)


def sparse_head(scores: Tensor, labels: Tensor, *, num_classes: int) -> SparseHead:
    """The head with NEC 5, or with K <= 5 the one on all concepts; scores (N, K) standardised, labels (N,)."""
    if scores.shape[1] > EFFECTIVE:
        heads = regularisation_path(scores, labels, num_classes=num_classes, densest=EFFECTIVE, penalties=PENALTIES)
        return head_at(heads, EFFECTIVE)
    weakest = max_regularisation(scores, labels, num_classes) * WEAKEST
    return elastic_net(scores, labels, num_classes=num_classes, lam=weakest)


@torch.inference_mode()
def sparse_yardstick(train: Scored, test: Scored, *, num_classes: int) -> dict[str, float]:
    """`acc_nec5` of the concept scores, and `acc_nec5_random` of as many random directions (mean of three draws).

    The heads are fitted on `train`, which should have `rows_to_fit` rows, and measured on `test`.
    """
    concepts = train.scores.shape[1]

    def accuracy(fitted: Tensor, measured: Tensor) -> float:
        mean, deviation = fitted.mean(0), fitted.std(0).clamp_min(1e-12)
        head = sparse_head((fitted - mean) / deviation, train.labels, num_classes=num_classes)
        logits = (measured - mean) / deviation @ head.weight.T + head.bias
        return float((logits.argmax(1) == test.labels).float().mean())

    controls = []
    for seed in range(DRAWS):
        bank = random_bank([""] * concepts, train.features.shape[1], seed=seed)
        controls.append(accuracy(bank.project(train.features), bank.project(test.features)))
    return {"acc_nec5": accuracy(train.scores, test.scores), "acc_nec5_random": sum(controls) / DRAWS}
