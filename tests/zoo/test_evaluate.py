"""Evaluation: which rows the yardstick learns from, and what is kept of the predictions."""

import torch

from zoo.data.digits import DigitsDataModule
from zoo.evaluate import evaluate, load_predictions, training_rows
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
