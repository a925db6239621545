"""The synthetic concept tasks are what their equations say, and come through a data module like any data."""

import numpy as np
import pytest

from zoo.data.errors import DataError
from zoo.data.synthetic import NAMES, SyntheticDataModule, generate


def test_equations():
    rows, concepts, labels = generate("xor", samples=500, seed=0)
    assert np.array_equal(labels, concepts.sum(1) == 1)
    assert np.array_equal(concepts, rows > 0.5)
    rows, concepts, labels = generate("dot", samples=500, seed=0)
    one, other = (rows[:, :2] + rows[:, 2:]) / 2, (rows[:, :2] - rows[:, 2:]) / 2
    assert np.array_equal(concepts, np.stack([one @ [1, 1] > 0, other @ [-1, -1] > 0], axis=1))
    assert np.array_equal(labels, (one * other).sum(1) > 0)
    rows, concepts, labels = generate("trig", samples=500, seed=0)
    assert rows.shape == (500, 7)
    # h = (sin h + h) - sin h, and |h|^2 is the last column
    assert ((rows[:, 6] >= 0) & ((concepts.sum(1) > 0) | (labels == 0))).all()


@pytest.mark.parametrize("name", NAMES)
def test_data_module(name):
    datamodule = SyntheticDataModule(name=name, samples=200, seed=3, batch_size=32)
    facts = datamodule.facts
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["image"].shape == (32, facts.in_channels)
    assert batch["concepts"].shape == (32, len(facts.concept_names))
    assert batch["label"].dtype.is_floating_point is False
    sizes = [len(getattr(datamodule, f"{split}_set")) for split in ("train", "val", "test")]
    assert sum(sizes) == 200
    assert not datamodule.check()


def test_mistakes():
    with pytest.raises(DataError, match="dot, trig, xor"):
        SyntheticDataModule(name="cross")
    with pytest.raises(DataError, match="at least 20"):
        SyntheticDataModule(samples=3)
