"""Which sentences describe a class: LaBo's selectors (Yang et al., CVPR 2023, arXiv 2211.11158, its section 3).

Notation: C candidates, M classes, S (C, M) mean similarity of a candidate with the training images of a class.

    paper     F(A) = alpha sum_{c in A} D(c) + beta sum_{i candidate of y} max_{c in A} cos(i, c)
              D(c) = sum_y P log P,  P(y|c) = S(c, y) / sum_y' S(c, y')        larger = more discriminative
    upstream  F(A) = s sum_{c in A} I(c) + w sum_d max(0, max_{c in A} X[c, d]),  X = [s I | text feature]
              I(c) the information that c gives on the class, from p(c, y) = S(c, y) / (M sum_c' S(c', y))

The released code (YueYANG1996/LaBo @ 83ed4b0, no licence; nothing of it is used here) hands the matrix X to apricot as
if it were a similarity matrix, so that its second term covers coordinates of the text features, not candidates.

The greedy algorithm keeps every candidate's gain and corrects it only for what the last choice changed: most of what is
covered keeps its best representative, so that a step touches a small part. Ties go to the lowest index, also those that
rounding breaks: where two candidates cover only each other, their gains are equal.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Selection = Literal["paper", "upstream", "mi", "group_mi", "clip_score", "random"]


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
    columns, best = np.ascontiguousarray(cover.T), start.astype(float)
    block = np.empty((64, len(bonus)))
    gain = _raised(columns, np.arange(len(best)), best, np.full_like(best, np.inf), block)
    noise = 1e-13 * float(gain.max(initial=0))
    free, chosen, gains = np.zeros(len(bonus)), list[int](), list[float]()
    for _ in range(min(count, len(bonus))):
        total = bonus + weight * gain + free
        choice = int((total >= total.max() - 10 * noise * weight).argmax())
        chosen.append(choice)
        gains.append(float(total[choice]) + (weight * float(start.sum()) if len(gains) == 0 else 0.0))
        free[choice] = -np.inf
        changed = np.flatnonzero(cover[choice] > best)
        new = cover[choice, changed]
        gain -= _raised(columns, changed, best[changed], new, block)
        gain[gain < noise] = 0
        best[changed] = new
    return chosen, gains


def _raised(columns: Array, rows: NDArray[np.integer], low: Array, high: Array, block: Array) -> Array:
    """sum over `rows` i of clip(columns[i], low_i, high_i) - low_i: (I, C) -> (C,).

    Block by block in one small buffer, which stays in the cache where whole temporaries would not.
    """
    result, ones = np.full(columns.shape[1], -low.sum()), np.ones(len(block))
    for begin in range(0, len(rows), len(block)):
        part = slice(begin, begin + len(block))
        values = columns.take(rows[part], axis=0, out=block[: len(rows[part])], mode="clip")
        np.maximum(values, low[part, None], out=values)
        np.minimum(values, high[part, None], out=values)
        result += ones[: len(values)] @ values
    return result


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
