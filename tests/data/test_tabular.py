"""Tables: statistics of the training rows only, missing values, and mistakes."""

import numpy as np
import pytest
import torch

from tests.shared_data import shared_data
from zoo.data.errors import DataError
from zoo.data.tabular import TabularDataModule


def test_diabetes_is_standardised_by_its_training_rows():
    data = TabularDataModule()
    assert data.check() == []
    assert (data.facts.task, data.facts.num_outputs, data.facts.image_size) == ("regression", 1, (0, 0))
    assert data.facts.in_channels == len(data.feature_names) == 10
    data.setup()
    rows = torch.stack([data.train_set[index]["image"] for index in range(len(data.train_set))]).double()
    labels = torch.stack([data.train_set[index]["label"] for index in range(len(data.train_set))]).double()
    assert torch.allclose(rows.mean(0), torch.zeros(10).double(), atol=1e-5)
    assert torch.allclose(rows.std(0, correction=0), torch.ones(10).double(), atol=1e-5)
    assert abs(labels.mean()) < 1e-6
    assert abs(labels.std(correction=0) - 1) < 1e-6
    held = torch.stack([data.test_set[index]["image"] for index in range(len(data.test_set))])
    assert held.mean(0).abs().max() > 1e-3


def test_raw_row_and_target_keep_their_units():
    from sklearn.datasets import load_diabetes

    table, data = load_diabetes(scaled=False), TabularDataModule()
    data.setup()
    where = int(data.val_set.names[4])
    assert np.allclose(data.raw("val", 4), table.data[where])
    target = data.val_set[4]["label"] * data.target_std + data.target_mean
    assert torch.allclose(target, torch.tensor([table.target[where]], dtype=torch.float32), rtol=1e-5)
    batch = next(iter(data.train_dataloader()))
    assert (batch["image"].shape, batch["label"].shape) == ((64, 10), (64, 1))


CSV = "title line\nid,size,kind,price\n" + "".join(
    f"{index},{index * 2 if index % 7 else 'NA'},{'ab'[index % 2]},{index + 1 if index % 5 else ''}\n"
    for index in range(35)
)


def write(tmp_path, text=CSV):
    (tmp_path / "table.csv").write_text(text)
    return {"root": str(tmp_path / "table.csv"), "target": "price", "drop": ["id"], "skip_lines": 1}


def test_missing_values(tmp_path):
    options = write(tmp_path)
    dropped, filled = TabularDataModule(**options), TabularDataModule(**options, missing="mean")
    assert dropped.feature_names == ("size", "kind=a", "kind=b")
    assert sum(map(len, dropped.split_indices.values())) == 24
    assert sum(map(len, filled.split_indices.values())) == 28
    filled.setup()
    for part in (filled.train_set, filled.val_set, filled.test_set):
        for index, name in enumerate(part.names):
            row = part[index]["image"]
            assert torch.isfinite(row).all()
            if int(name) % 7 == 0:
                assert abs(row[0]) < 1e-6


def test_target_options(tmp_path):
    data = TabularDataModule(**write(tmp_path), max_target=20, log_target=True, standardize_target=False)
    data.setup()
    assert (data.target_mean, data.target_std) == (0.0, 1.0)
    for part in (data.train_set, data.val_set, data.test_set):
        assert np.allclose(part.labels[:, 0], np.log([int(name) + 1 for name in part.names]))
        assert part.labels.max() < np.log(20)


def test_test_fold_of_an_npz(tmp_path):
    folds = np.zeros((50, 2), dtype=bool)
    folds[10:20, 1] = True
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.savez(tmp_path / "table.npz", x=rows, y=rows.sum(1), test_mask=folds)
    data = TabularDataModule(root=str(tmp_path / "table.npz"), target="y", fold=1)
    data.setup()
    assert data.test_set.names == [str(index) for index in range(10, 20)]
    assert not set(data.test_set.names) & set(data.train_set.names + data.val_set.names)
    with pytest.raises(DataError, match=r"data\.fold=2; give 0 to 1"):
        TabularDataModule(root=str(tmp_path / "table.npz"), target="y", fold=2).setup()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "cost"}, "no column 'cost'; the header .line 2. has id, size, kind, price"),
        ({"drop": ["id", "ids"]}, "no column 'ids'"),
        ({"target": "kind"}, "the target 'kind' holds text"),
        ({"skip_lines": 0}, "data.skip_lines"),
        ({"root": "nowhere.csv"}, "nowhere.csv: no such file"),
        ({"drop": ["id", "size", "kind"]}, "no column is left"),
        ({"max_target": -1.0}, "0 of 35 rows are left"),
    ],
)
def test_mistakes(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        TabularDataModule(**{**write(tmp_path), **change}).setup()


def test_ragged_rows_and_long_text(tmp_path):
    options = write(tmp_path, CSV + "35,1\n")
    assert TabularDataModule(**options).check()[0].startswith(f"{tmp_path}/table.csv line 38: not the header's 4 cells")
    options = write(tmp_path, "t\nid,size,price\n" + "".join(f"{index},text{index},1\n" for index in range(60)))
    assert "60 different texts; name it in data.drop" in TabularDataModule(**options).check()[0]


@pytest.mark.parametrize(
    ("file", "options", "rows", "width"),
    [
        ("uci_regression/yacht.npz", {"target": "y", "fold": 0}, 308, 6),
        ("uci_regression/wine.npz", {"target": "y", "fold": 9}, 1599, 11),
        (
            "regression/bike_sharing_hour.csv",
            {"target": "cnt", "drop": ["instant", "dteday", "casual", "registered"]},
            17379,
            12,
        ),
        ("regression/california_housing.csv", {"target": "median_house_value", "missing": "mean"}, 20640, 13),
        (
            "regression/beijing_pm25_2010_2014.csv",
            {"target": "pm2.5", "drop": ["No"], "skip_lines": 1},
            43824 - 2067,
            14,
        ),
    ],
)
def test_real_tables(file, options, rows, width):
    data = TabularDataModule(root=str(shared_data(file)), **options)
    assert sum(map(len, data.split_indices.values())) == rows
    assert data.facts.in_channels == width
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (64, width)
    assert torch.isfinite(batch["image"]).all()
