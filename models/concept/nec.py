"""Accuracy at a number of effective concepts (NEC): Srivastava, Yan, Weng, VLG-CBM, NeurIPS 2024, arXiv 2408.01432.

NEC is the mean number of non-zero weights per class. A dense head on many concepts learns a label from anything, random
directions included; at the same small NEC, concept models can be compared.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from zoo.models.concept.glm_saga import SparseHead, elastic_net, max_regularisation

NONZERO = 1e-5
"""A weight counts as an effective concept where its magnitude is above this."""
FACTOR = 2**-0.1
"""Of a path's penalties, from one to the next."""
PATIENCE = 20
"""Penalties without a rise of NEC that end a path."""


def effective_concepts(weight: Tensor) -> float:
    """NEC: mean number of weights above 1e-5 in magnitude per class; weight (M, K)."""
    return float((weight.abs() > NONZERO).sum() / len(weight))


def truncate(weight: Tensor, effective: float) -> Tensor:
    """Zero all but the largest M * `effective` magnitudes of the whole matrix (M, K), so that NEC is `effective`."""
    keep = round(effective * len(weight))
    if keep >= weight.numel():
        return weight.clone()
    kept = torch.zeros_like(weight).flatten()
    largest = weight.abs().flatten().topk(keep).indices
    kept[largest] = weight.flatten()[largest]
    return kept.view_as(weight)


def regularisation_path(
    x: Tensor, labels: Tensor, *, num_classes: int, alpha: float = 0.99, penalties: int = 150, densest: float = 30
) -> Iterator[SparseHead]:
    """Heads of falling penalty from the first that is not empty, each started from the one before, until NEC is past
    `densest` or has not risen for `PATIENCE` penalties (published: 150 penalties, each 2^-0.1 of the one before)."""
    lam, head = max_regularisation(x, labels, num_classes) / alpha, None
    most, stalled = 0.0, 0
    for _ in range(penalties):
        lam *= FACTOR
        head = elastic_net(x, labels, num_classes=num_classes, lam=lam, alpha=alpha, max_iterations=500, start=head)
        yield head
        count = effective_concepts(head.weight)
        stalled = 0 if count > most else stalled + 1
        most = max(most, count)
        if count > densest or stalled == PATIENCE:
            return


def head_at(heads: Iterable[SparseHead], effective: float) -> SparseHead:
    """The first head of a path with NEC of at least `effective` (the last one where none has), truncated to it."""
    head = None
    for head in heads:
        if effective_concepts(head.weight) >= effective:
            break
    if head is None:
        raise ValueError("the path holds no head: give at least one penalty")
    return SparseHead(truncate(head.weight, effective), head.bias, head.lam, head.iterations, head.violation)


def accuracy_at_nec(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    num_classes: int,
    effective: Iterable[float] = (5, 10, 15, 20, 25, 30),
    alpha: float = 0.99,
) -> dict[float, float]:
    """Test accuracy of sparse heads at each number of effective concepts (VLG-CBM); their mean is "ANEC-avg".

    train, test: concept scores (N, K), standardised by the training mean and deviation here, and labels (N,).
    """
    wanted = sorted(effective)
    mean, std = train[0].mean(0), train[0].std(0).clamp_min(1e-12)
    scores, labels = (test[0] - mean) / std, test[1]
    fitted = (train[0] - mean) / std
    heads = list(regularisation_path(fitted, train[1], num_classes=num_classes, alpha=alpha, densest=max(wanted)))
    chosen = {number: head_at(heads, number) for number in wanted}
    return {n: float(((scores @ h.weight.T + h.bias).argmax(1) == labels).float().mean()) for n, h in chosen.items()}
