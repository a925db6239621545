"""Which sentences describe a class: LaBo's selectors (Yang et al., CVPR 2023, arXiv 2211.11158, its section 3).

Notation: C candidates, M classes, S (C, M) mean similarity of a candidate with the training images of a class.

    paper     F(A) = alpha sum_{c in A} D(c) + beta sum_{i candidate of y} max_{c in A} cos(i, c)
              D(c) = sum_y P log P,  P(y|c) = S(c, y) / sum_y' S(c, y')        larger = more discriminative
    upstream  F(A) = s sum_{c in A} I(c) + w sum_d max(0, max_{c in A} X[c, d]),  X = [s I | text feature]
              I(c) the information that c gives on the class, from p(c, y) = S(c, y) / (M sum_c' S(c', y))

The released code (YueYANG1996/LaBo @ 83ed4b0, no licence; nothing of it is used here) hands the matrix X to apricot as
if it were a similarity matrix, so that its second term covers coordinates of the text features, not candidates.

The greedy algorithm keeps every candidate's gain and corrects it only for what the last choice changed: most of what is
covered keeps its best representative, so that a step touches a small part. These gains are in single precision; where
they cannot tell the best candidates apart, those few are evaluated by definition, in double. Ties go to the lowest
index, also those that rounding breaks: where two candidates cover only each other, their gains are equal.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Selection = Literal["paper", "upstream", "mi", "group_mi", "clip_score", "random"]
_BLOCK = 64  # rows at a time: they stay in the cache, and a sum of few numbers is precise


def class_scores(features: Array, labels: NDArray[np.integer], concepts: Array, num_classes: int) -> Array:
    """S (C, M): mean of x . c over the images of each class; features (N, D), labels (N,), concepts (C, D).

    Raises:
        ValueError: a class has no image.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        raise ValueError(f"no training image of class {np.flatnonzero(counts == 0).tolist()}: each class needs one")
    sums = np.zeros((num_classes, features.shape[1]))
    np.add.at(sums, labels, features)
    return concepts @ (sums / counts[:, None]).T


def positive(scores: Array) -> Array:
    """Scores as the logarithms need them: shifted where the smallest is not above 0, to a thousandth of the range."""
    low, high = scores.min(), scores.max()
    return scores if low > 0 else scores - low + max(high - low, 1e-6) * 1e-3


def discriminability(scores: Array) -> Array:
    """D (C,): negative entropy over classes; scores (C, M) above 0."""
    share = scores / scores.sum(1, keepdims=True)
    return (share * np.log(share)).sum(1)


def mutual_information(scores: Array) -> Array:
    """I (C,): each candidate's part of the information between candidate and class; scores (C, M) above 0."""
    joint = scores / scores.sum(0) / scores.shape[1]
    return (joint * np.log(joint * scores.shape[1] / joint.sum(1, keepdims=True))).sum(1)


def greedy(cover: Array, bonus: Array, count: int, *, weight: float, start: Array) -> tuple[list[int], list[float]]:
    """Choose `count` rows that maximise sum bonus[c] + weight * sum_i max(start_i, max_c cover[c, i]).

    cover (C, I), bonus (C,), start (I,) what every column has before anything is chosen.

    Returns:
        the rows in the order of choice, and the gain of each (the first one with weight * sum(start) in it).
    """
    cover, count = np.ascontiguousarray(cover, float), min(count, len(bonus))
    if count <= 0:
        return [], []
    level = np.empty((count, cover.shape[1]))  # of the columns after each choice
    chosen = [_first_best(cover, bonus, weight, start)]
    np.maximum(start, cover[chosen[0]], out=level[0])
    room, gain, error = _estimates(cover, bonus, weight, level[0], count)
    gain[chosen] = -np.inf
    weights = np.full(_BLOCK, weight, room.dtype)
    for step in range(1, count):
        choice = int(gain.argmax())
        top, gain[choice] = gain[choice], -np.inf
        if gain[gain.argmax()] > top - error:
            gain[choice] = top
            close = np.flatnonzero(gain >= top - error)
            choice = int(close[_first_best(cover[close], bonus[close], weight, level[step - 1])])
            gain[choice] = -np.inf
        chosen.append(choice)
        np.maximum(level[step - 1], cover[choice], out=level[step])
        rise = room[:, choice]
        raised = rise.nonzero()[0]
        rise = rise[raised][:, None]
        for begin in range(0, len(raised), _BLOCK):
            rows = raised[begin : begin + _BLOCK]
            block = room.take(rows, axis=0)
            taken = np.minimum(block, rise[begin : begin + _BLOCK])
            gain -= weights[: len(rows)] @ taken
            block -= taken
            room[rows] = block
    return chosen, (bonus[chosen] + weight * np.diff(level.sum(1), prepend=0.0)).tolist()


def _first_best(cover: Array, bonus: Array, weight: float, level: Array) -> int:
    """The lowest index of the rows that would add most to the objective, but for rounding."""
    covered = [np.maximum(cover[b : b + _BLOCK], level).sum(1) for b in range(0, len(cover), _BLOCK)]
    gain = bonus + weight * (np.concatenate(covered) - level.sum())
    rounding = 1e-14 * float(abs(weight) * np.abs(level).sum() + np.abs(gain).max())
    return int((gain >= gain.max() - rounding).argmax())


def _estimates(cover: Array, bonus: Array, weight: float, level: Array, count: int) -> tuple[Array, Array, float]:
    """room (I, C), what each candidate could still raise each column, float32; gain (C,); the error of a comparison.

    A choice that raises a column takes min(room, rise) off every candidate's room there, and that much off its gain.
    The error: n additions of numbers of one sign are wrong by at most n roundings of their sum. A room is added once
    and taken off once, in blocks; it is rounded again by every choice; and two candidates are compared. Double
    precision adds little to it.
    """
    room = np.empty(cover.shape[::-1], np.float32)
    for begin in range(0, len(cover), _BLOCK):
        block = (cover[begin : begin + _BLOCK] - level).astype(room.dtype)
        room[:, begin : begin + _BLOCK] = np.maximum(block, np.zeros_like(level, room.dtype), out=block).T
    covered, ones = np.zeros(len(bonus)), np.ones(_BLOCK, room.dtype)
    for begin in range(0, len(room), _BLOCK):
        block = room[begin : begin + _BLOCK]
        covered += ones[: len(block)] @ block
    size = abs(weight) * float(covered.max())
    error = 2 * (2 * _BLOCK + count + 8) * 2.0**-24 * size
    error += 1e-13 * float(size + np.abs(bonus).max() + abs(weight) * np.abs(level).sum())
    return room, bonus + weight * covered, error


def select_paper(
    scores: Array, concepts: Array, count: int, *, alpha: float = 1.0, beta: float = 1.0
) -> tuple[list[int], list[float]]:
    """The published objective over one class's candidates: D (C,) is `scores`, concepts (C, D)."""
    unit = concepts / np.linalg.norm(concepts, axis=1, keepdims=True)
    similarity = unit @ unit.T
    return greedy(similarity, alpha * scores, count, weight=beta, start=similarity.min(1))


def select_upstream(information: Array, concepts: Array, count: int, *, scale: float, weight: float) -> list[int]:
    """The released objective over one class's candidates: I (C,), concepts (C, D)."""
    rows = np.concatenate([scale * information[:, None], concepts], axis=1)
    return greedy(rows, scale * information, count, weight=weight, start=np.zeros(rows.shape[1]))[0]


def best_first(values: Array) -> NDArray[np.integer]:
    """Indices by falling value; ties by rising index."""
    return np.argsort(-values, kind="stable")


def select(
    scores: Array,
    concepts: Array,
    owners: NDArray[np.integer],
    per_class: int,
    *,
    selection: Selection = "paper",
    alpha: float = 1.0,
    beta: float = 1.0,
    scale: float = 1e7,
    weight: float = 1.0,
    seed: int = 1,
) -> list[int]:
    """Choose `per_class` candidates for every class; "mi" and "clip_score" choose among those of all classes at once.

    scores S (C, M), concepts (C, D), owners (C,) the class that each candidate describes. alpha, beta: of the paper's
    objective; scale, weight: s and w of the released one.

    Returns:
        indices of candidates, class by class in the order of choice; none of a class that owns no candidate.
    """
    scores = positive(scores)
    if selection == "mi":
        return best_first(mutual_information(scores))[: per_class * scores.shape[1]].tolist()
    if selection == "clip_score":
        return best_first(scores.max(1))[: per_class * scores.shape[1]].tolist()
    values = discriminability(scores) if selection == "paper" else mutual_information(scores)
    rng, chosen = np.random.default_rng(seed), []
    for label in range(scores.shape[1]):
        own = np.flatnonzero(owners == label)
        if not len(own):
            continue
        mine: Sequence[int] | NDArray[np.integer]
        if selection == "paper":
            mine, _ = select_paper(values[own], concepts[own], per_class, alpha=alpha, beta=beta)
        elif selection == "upstream":
            mine = select_upstream(values[own], concepts[own], per_class, scale=scale, weight=weight)
        elif selection == "group_mi":
            mine = best_first(values[own])[:per_class]
        else:
            mine = rng.permutation(len(own))[:per_class]
        chosen += own[mine].tolist()
    return chosen
