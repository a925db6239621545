"""Evaluation: which rows the yardstick learns from, and what is kept of the predictions."""

import torch

from zoo.data.contract import Facts
from zoo.data.digits import DigitsDataModule
from zoo.evaluate import concept_groups, evaluate, load_predictions, training_rows
from zoo.models.backbone import Identity
from zoo.models.contract import Output, ZooModel
from zoo.trained import open_trained, training_data


def test_training_rows_are_a_fixed_choice_without_augmentation():
    plain, varied = DigitsDataModule(), DigitsDataModule(augment=True)
    first, second = ([batch["image"] for batch in training_rows(data, 70)] for data in (plain, varied))
    assert [len(images) for images in first] == [64, 6]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert varied.train_set.augmented


def test_all_rows_where_there_are_fewer():
    data = DigitsDataModule()
    assert sum(len(batch["label"]) for batch in training_rows(data, 10**6)) == len(data.train_set)


def test_the_training_data_are_those_of_the_run_whatever_is_evaluated(trained_run):
    trained = open_trained(str(trained_run))
    assert training_data(trained, []) is None
    own = training_data(trained, ["data=folder"])
    assert isinstance(own, DigitsDataModule)
    trained.run = None
    assert "not at hand" in training_data(trained, [])


def test_concepts_are_corrected_in_the_groups_of_the_data_where_the_model_keeps_the_data_s_concepts():
    facts = Facts("classification", 2, ("a", "b"), 1, (8, 8), ("x", "y", "z"), (("g", (0, 2)),))

    def model(names):
        found = ZooModel()
        found.concept_names = names
        return found

    assert concept_groups(model(("x", "y", "z")), facts) == ((0, 2), (1,))
    assert concept_groups(model(("x", "z")), facts) == ((0,), (1,))


def test_predictions_are_kept_with_what_spoke_for_each_class(trained_run):
    found = load_predictions(trained_run)
    assert found.spoken_for.shape == (10, 12)
    assert len(found.label) == len(found.concepts) == 269
    assert load_predictions(trained_run / "checkpoints") is None


def test_a_model_without_concepts_has_no_figures_of_them():
    class Plain(ZooModel):
        def __init__(self):
            super().__init__()
            self.backbone = Identity(in_channels=1, image_size=(8, 8))
            self.layer = torch.nn.Linear(64, 10)

        def forward_features(self, features, intervene=None):
            return Output(self.layer(features))

    data = DigitsDataModule()
    data.setup()
    metrics, found = evaluate(Plain(), data, "test", cost=False)
    assert set(metrics) == {"samples", "acc", "balanced_acc"}
    assert found.spoken_for is None
