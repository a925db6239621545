"""Concepts of classes from noisy annotations of images, as CUB's 112 concepts were made from its 312 attributes."""

from typing import NamedTuple

import numpy as np

NOT_VISIBLE = 1


class ClassConcepts(NamedTuple):
    """table: (M, K) uint8, one row a class. selected: (K,) positions of the kept attributes. imbalance: (K,) number of
    images without the concept over those with it, when every image has its class's concepts."""

    table: np.ndarray
    selected: np.ndarray
    imbalance: np.ndarray


def class_concepts(
    attributes: np.ndarray, certainty: np.ndarray, labels: np.ndarray, *, num_classes: int, min_classes: int = 10
) -> ClassConcepts:
    """Majority vote of a class's images, attribute by attribute (Koh et al., ICML 2020, arXiv 2007.04612, appendix).

    An image on which an attribute is absent because it was not visible does not vote; a tie counts as present; an
    attribute is kept where at least `min_classes` classes have it.

    Args:
        attributes: (N, A) 0 or 1. certainty: (N, A), from 1, not visible, to 4, definitely. labels: (N,) classes.
    """
    votes = (attributes == 1) | (certainty != NOT_VISIBLE)
    present = np.zeros((num_classes, attributes.shape[1]), dtype=np.int64)
    absent = np.zeros_like(present)
    np.add.at(present, labels, votes & (attributes == 1))
    np.add.at(absent, labels, votes & (attributes == 0))
    table = (present >= absent).astype(np.uint8)
    selected = np.flatnonzero(table.sum(0) >= min_classes)
    kept = table[:, selected]
    return ClassConcepts(kept, selected, len(labels) / kept[labels].sum(0) - 1)
