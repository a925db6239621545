"""Effective concepts: the path of penalties, truncation, accuracy."""

import itertools

import pytest
import torch

from tests.models.concept.test_glm_saga import problem
from zoo.models.concept.nec import accuracy_at_nec, effective_concepts, head_at, regularisation_path, truncate


def test_path_grows_denser_and_ends_past_the_wanted_density():
    x, labels = problem()
    heads = list(regularisation_path(x, labels, num_classes=4, densest=8))
    counts = [effective_concepts(head.weight) for head in heads]
    assert counts[0] <= 1
    assert counts[-1] > 8
    assert all(count <= 8 for count in counts[:-1])
    lams = [head.lam for head in heads]
    assert all(b / a == pytest.approx(2**-0.1) for a, b in itertools.pairwise(lams))


def test_truncation_keeps_the_largest():
    weight = torch.tensor([[3.0, -2.0, 0.5, 0.0], [0.1, 1.0, -4.0, 0.2]])
    kept = truncate(weight, 2)
    assert kept.tolist() == [[3.0, -2.0, 0.0, 0.0], [0.0, 1.0, -4.0, 0.0]]
    assert effective_concepts(kept) == 2
    assert torch.equal(truncate(weight, 4), weight)


def test_head_at_is_the_first_dense_enough():
    x, labels = problem()
    heads = list(regularisation_path(x, labels, num_classes=4, densest=10))
    head = head_at(heads, 5)
    assert effective_concepts(head.weight) == 5
    first = next(h for h in heads if effective_concepts(h.weight) >= 5)
    assert head.lam == first.lam


def test_accuracy_at_nec_rises_with_the_concepts_allowed():
    x, labels = problem(count=900)
    scores = accuracy_at_nec((x[:600], labels[:600]), (x[600:], labels[600:]), num_classes=4, effective=(1, 4, 12))
    assert list(scores) == [1, 4, 12]
    assert scores[1] < scores[12]
    assert scores[12] > 0.5


def test_an_empty_path_is_refused():
    with pytest.raises(ValueError, match="holds no head"):
        head_at([], 5)
