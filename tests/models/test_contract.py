"""What every model does: it refuses words that are none of an argument's choices."""

import copy

import pytest

from tests.models.concept.toy import CONCEPTS, Words
from zoo.models.backbone import Identity
from zoo.models.concept.cbm import CBM
from zoo.models.concept.labo import LaBo
from zoo.models.concept.pcbm import PCBM
from zoo.models.concept.tf_tti import TFTTI


@pytest.mark.parametrize(
    ("model", "argument", "choices"),
    [
        (CBM, {"bottleneck": "sigmod"}, "sigmoid, logit, relu"),
        (CBM, {"imbalance": "weights"}, "none, weight, pos_weight"),
        (LaBo, {"selection": "greedy"}, "paper, upstream, mi, group_mi, clip_score, random"),
        (PCBM, {"solver": "saga"}, "glm, sgd"),
        (TFTTI, {"mask_value": "mean"}, "zero, source_mean"),
    ],
)
def test_a_word_that_is_no_choice_is_refused_with_the_choices(model, argument, choices):
    name, word = next(iter(argument.items()))
    with pytest.raises(ValueError, match=f"{model.__name__}: unknown {name} '{word}': choose one of {choices}"):
        model(backbone=Words(in_channels=4), num_outputs=2, concept_names=CONCEPTS, **argument)


def test_a_copy_needs_no_arguments():
    model = CBM(backbone=Identity(in_channels=4), num_outputs=2, concept_names=CONCEPTS, bottleneck="logit")
    assert copy.deepcopy(model).bottleneck_mode == "logit"
