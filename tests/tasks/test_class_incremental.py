"""Class-incremental learning: the protocol's figures, and that values forget less than a linear head."""

import pytest
import torch
from torch import nn

from zoo.models.concept.dkvb import DKVB
from zoo.tasks.class_incremental import Incremental, LinearHead, class_groups, class_incremental


class Identity(nn.Identity):
    feature_dim = 16


def clusters(per_class: int, *, classes: int = 6) -> dict[str, torch.Tensor]:
    centres = 2 * torch.randn(classes, 16, generator=torch.Generator().manual_seed(7))
    label = torch.arange(classes).repeat_interleave(per_class)
    return {"features": centres[label] + 0.3 * torch.randn(len(label), 16), "label": label}


def test_groups_are_consecutive_or_a_seeded_shuffle():
    assert class_groups(5) == [[0, 1], [2, 3], [4]]
    shuffled = class_groups(10, size=5, seed=3)
    assert sorted(shuffled[0] + shuffled[1]) == list(range(10))
    assert shuffled == class_groups(10, size=5, seed=3)


def test_forgetting_is_the_drop_since_a_class_was_learned():
    accuracy = torch.tensor([[1.0, 0.8, 0.0, 0.0], [0.5, 0.2, 0.9, 0.7]])
    result = Incremental(accuracy, ((0, 1), (2, 3)))
    assert result.final == pytest.approx(0.575)
    assert result.forgetting == pytest.approx((0.5 + 0.6) / 2)


def test_values_forget_less_than_half_of_what_a_linear_head_forgets():
    torch.manual_seed(0)
    train, test, groups = clusters(40), clusters(20), class_groups(6)
    model = DKVB(backbone=Identity(), num_outputs=6, codebooks=32, pairs=24, key_dim=6, key_epochs=0)
    heads = model.split(train["features"])
    model.start_kmeans(heads)
    ours = class_incremental(model, train, test, groups=groups, epochs=40)
    linear = class_incremental(LinearHead(feature_dim=16, num_outputs=6), train, test, groups=groups, epochs=40, lr=0.1)
    assert linear.accuracy[0, :2].min() > 0.9  # it had learned them
    assert ours.forgetting < 0.5 * linear.forgetting
    assert ours.final > linear.final


def test_one_group_is_the_iid_mode():
    torch.manual_seed(0)
    head = LinearHead(feature_dim=16, num_outputs=6)
    result = class_incremental(head, clusters(20), clusters(10), groups=[range(6)], epochs=30, lr=0.1)
    assert result.forgetting == 0
    assert result.final > 0.9


def test_groups_that_the_data_do_not_hold_are_refused():
    head, data = LinearHead(feature_dim=16, num_outputs=6), clusters(2)
    with pytest.raises(ValueError, match="no image of class 6"):
        class_incremental(head, data, data, groups=[[0, 6]])
    with pytest.raises(ValueError, match="two groups"):
        class_incremental(head, data, data, groups=[[0, 1], [1]])
