"""The yardstick: what five named concepts tell of a class, beside what five random directions tell."""

import pytest
import torch

from zoo.models.backbone import Identity
from zoo.models.concept.cbm import CBM
from zoo.models.concept.nec import accuracy_at_nec, effective_concepts
from zoo.models.contract import Output
from zoo.tasks.sparse_yardstick import (
    ROWS,
    Scored,
    concept_scores,
    rows_to_fit,
    scored,
    sparse_head,
    sparse_yardstick,
)

CLASSES, WIDTH = 4, 64


def rows(count: int, *, seed: int) -> Scored:
    """The class is written in two of eight concepts; the features hold these in 8 of 64 directions, else noise."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, 8, generator=generator).sign()
    labels = ((scores[:, 0] > 0) * 2 + (scores[:, 1] > 0)).long()
    features = torch.cat([scores, 2 * torch.randn(count, WIDTH - 8, generator=generator)], dim=1)
    return Scored(scores, features, labels)


def test_named_concepts_beat_random_directions_where_the_features_hold_more_than_them():
    found = sparse_yardstick(rows(400, seed=0), rows(400, seed=1), num_classes=CLASSES)
    assert found["acc_nec5"] == 1
    assert found["acc_nec5_random"] < 0.6


def test_it_is_the_accuracy_at_nec_five_of_the_scores():
    train, test = rows(300, seed=0), rows(300, seed=1)
    noisy = [Scored(s.scores + torch.randn(300, 8), s.features, s.labels) for s in (train, test)]
    wanted = accuracy_at_nec(*((each.scores, each.labels) for each in noisy), num_classes=CLASSES, effective=(5,))
    assert sparse_yardstick(*noisy, num_classes=CLASSES)["acc_nec5"] == wanted[5]


def test_the_scale_of_a_concept_does_not_matter():
    train, test = rows(300, seed=0), rows(300, seed=1)
    factor = torch.logspace(-2, 2, 8)
    scaled = [Scored(s.scores * factor + 3, s.features, s.labels) for s in (train, test)]
    assert sparse_yardstick(*scaled, num_classes=CLASSES) == sparse_yardstick(train, test, num_classes=CLASSES)


def test_fewer_than_five_concepts_give_a_head_on_all_of_them():
    train, test = (Scored(s.scores[:, :2], s.features, s.labels) for s in (rows(300, seed=0), rows(300, seed=1)))
    assert sparse_yardstick(train, test, num_classes=CLASSES)["acc_nec5"] == 1


def test_the_head_has_five_weights_a_class_or_fewer():
    train = rows(300, seed=0)
    noisy = train.scores + torch.randn(300, 8)
    head = sparse_head((noisy - noisy.mean(0)) / noisy.std(0), train.labels, num_classes=CLASSES)
    assert effective_concepts(head.weight) == 5
    assert effective_concepts(sparse_head(train.scores, train.labels, num_classes=CLASSES).weight) <= 5


def test_rows_are_bounded_by_the_size_of_the_head():
    assert rows_to_fit(12, 10) == ROWS
    assert rows_to_fit(500, 100) == 1000
    with pytest.raises(ValueError, match=r"4,751 concepts for 1,000 classes take longer.*accuracy_at_nec"):
        rows_to_fit(4751, 1000)


def test_scores_are_what_the_head_sees_where_that_is_one_number_a_concept():
    latent, concepts = torch.randn(5, 3), torch.rand(5, 3)
    prediction = torch.zeros(5, 2)
    assert concept_scores(Output(prediction, concepts, latent), 3) is latent
    assert concept_scores(Output(prediction, concepts, torch.randn(5, 12)), 3) is concepts
    with pytest.raises(ValueError, match="no concepts"):
        concept_scores(Output(prediction), 3)


def test_a_model_is_run_over_all_batches():
    model = CBM(backbone=Identity(in_channels=3), num_outputs=2, concept_names=["a", "b"])
    batches = [{"features": torch.randn(size, 3), "label": torch.arange(size) % 2} for size in (4, 3)]
    found = scored(model, batches)
    assert (found.scores.shape, found.features.shape, len(found.labels)) == ((7, 2), (7, 3), 7)
    torch.testing.assert_close(found.scores[4:], model.forward_features(batches[1]["features"]).latent.detach())
    with pytest.raises(ValueError, match="no rows"):
        scored(model, [])
