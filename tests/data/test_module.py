"""Splits, samplers and loaders, on the digits and on data of a test's own."""

import hashlib
import json

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from zoo.data.contract import Preprocessing
from zoo.data.digits import CONCEPTS, DigitsDataModule, concept_matrix
from zoo.data.errors import DataError
from zoo.data.sampler import GlobalSampler, evaluation_batch_size
from zoo.data.splits import stratified_split


def batches(loader, key="index"):
    return [batch[key].tolist() for batch in loader]


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def test_split_is_the_same_on_every_machine():
    """Pinned: whoever changes the split breaks every published number."""
    split = DigitsDataModule(val_fraction=0.15).split_indices
    digest = hashlib.sha256(json.dumps(split).encode()).hexdigest()
    assert digest.startswith("5baa2050ad7a1e51")
    assert {name: len(indices) for name, indices in split.items()} == {"train": 1259, "val": 269, "test": 269}


def test_splits_are_disjoint_complete_and_stratified():
    data = DigitsDataModule(val_fraction=0.15)
    data.setup()
    split = data.split_indices
    assert sorted(index for part in split.values() for index in part) == list(range(1797))
    for part in (data.train_set, data.val_set, data.test_set):
        shares = np.bincount(part.labels) / len(part)
        assert np.allclose(shares, 0.1, atol=0.01)


def test_seed_changes_the_split():
    assert DigitsDataModule(seed=1).split_indices != DigitsDataModule().split_indices


def test_few_shots_are_nested_and_leave_evaluation_whole():
    whole, few, more = (DigitsDataModule(shots=shots) for shots in (None, 2, 5))
    assert set(few.split_indices["train"]) < set(more.split_indices["train"]) < set(whole.split_indices["train"])
    assert all(few.split_indices[split] == whole.split_indices[split] for split in ("val", "test"))
    few.setup()
    labels = [int(few.train_set[index]["label"]) for index in range(len(few.train_set))]
    assert sorted(labels) == [label for label in range(10) for _ in range(2)]


def test_classes_with_fewer_items_than_shots_are_named(caplog):
    data = DigitsDataModule(shots=10)
    data.setup("fit")
    assert not caplog.messages
    data = DigitsDataModule(shots=142)
    data.setup("fit")
    counts = np.bincount(data.train_set.labels).tolist()
    scarce = [f"{digit} ({count})" for digit, count in enumerate(counts) if count < 142]
    assert 1 < len(scarce) < 7
    (line,) = caplog.messages
    start, _, named = line.rpartition(": ")
    assert start == "data.shots=142: these classes have fewer items, all are taken"
    assert sorted(named.split(", ")) == scarce
    DigitsDataModule(shots=1000).setup("fit")
    assert caplog.messages[1].endswith(") and 4 more")


def test_split_does_not_move_when_items_are_added():
    names = [f"{index}.jpg" for index in range(100)]
    before = stratified_split(names, strata=None, fractions=[0.1], seed=0)[1]
    after = stratified_split([*names, "new.jpg"], strata=None, fractions=[0.1], seed=0)[1]
    assert len(set(before.tolist()) - set(after.tolist())) <= 1


@pytest.mark.parametrize("size", [7, 8, 64, 65, 100])
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("epoch", [0, 3])
def test_training_batches_of_all_processes_are_those_of_one(size, world, epoch):
    items, per_process = range(size), 8 // world

    def chunks(rank, world, length):
        sampler = GlobalSampler(items, shuffle=True, seed=5, rank=rank, world=world)
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == len(sampler)
        return [order[start : start + length] for start in range(0, len(order), length)]

    whole = chunks(0, 1, 8)
    parts = [chunks(rank, world, per_process) for rank in range(world)]
    assert sorted(index for batch in whole for index in batch) == list(items)
    assert len({len(part) for part in parts}) == 1
    padding = -size % world
    for number, batch in enumerate(whole):
        union = [part[number][step] for step in range(per_process) for part in parts if step < len(part[number])]
        assert union == batch + whole[0][: len(union) - len(batch)]
        assert len(union) - len(batch) in (0, padding)


@pytest.mark.parametrize("size", [4, 64, 65, 97, 100])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_evaluation_sees_each_item_once_in_equally_many_batches(size, world):
    shares = [list(GlobalSampler(range(size), shuffle=False, rank=rank, world=world)) for rank in range(world)]
    assert sorted(index for share in shares for index in share) == list(range(size))
    length = evaluation_batch_size(size, per_process=8 // world, world=world)
    assert len({-(-len(share) // length) for share in shares}) == 1


def test_epochs_differ_and_repeat():
    def epoch(number):
        loader = DigitsDataModule().train_dataloader()
        loader.sampler.set_epoch(number)
        return batches(loader)

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)


@pytest.mark.parametrize("augment", [False, True])
def test_workers_do_not_change_the_batches(augment):
    loaders = [DigitsDataModule(num_workers=workers, augment=augment).train_dataloader() for workers in (0, 2)]
    for epoch in (0, 1):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        assert all(same(first, second) for first, second in zip(*loaders, strict=True))


def test_augmentation_follows_the_epoch_and_leaves_evaluation_alone():
    data, plain = DigitsDataModule(augment=True), DigitsDataModule()
    data.setup()
    plain.setup()
    first = data.train_set[3]["image"]
    assert torch.equal(first, data.train_set[3]["image"])
    images = []
    for epoch in range(6):
        data.train_set.set_epoch(epoch)
        images.append(data.train_set[3]["image"])
    assert any(not torch.equal(first, image) for image in images)
    assert torch.equal(data.val_set[3]["image"], plain.val_set[3]["image"])


def test_items_and_facts_agree():
    data = DigitsDataModule(image_size=16)
    data.setup()
    facts, item = data.facts, data.test_set[5]
    assert item["image"].shape == (facts.in_channels, *facts.image_size) == (1, 16, 16)
    assert item["image"].dtype == torch.float32
    assert (item["index"], type(item["label"])) == (5, int)
    assert item["concepts"].shape == (len(facts.concept_names),)
    assert data.raw("test", 5).shape == (8, 8, 1)
    with pytest.raises(IndexError):
        data.test_set[len(data.test_set)]


def test_preprocessing_can_be_replaced():
    data = DigitsDataModule()
    data.setup()
    data.use_preprocessing({"image_size": [12, 12], "mean": [0.5] * 3, "std": [0.5] * 3})
    assert (data.facts.in_channels, data.facts.image_size) == (3, (12, 12))
    assert next(iter(data.val_dataloader()))["image"].shape == (64, 3, 12, 12)
    assert data.default_preprocessing.image_size == (8, 8)
    data.use_preprocessing(Preprocessing(image_size=(8, 8), mean=(0.0,), std=(1.0,)))
    image = next(iter(data.val_dataloader()))["image"]
    assert (image.min(), image.max()) == (0, 1)
    data.use_preprocessing(Preprocessing(image_size=(8, 8), mean=(0.0, 0.5, 0.0), std=(1.0, 1.0, 2.0)))
    colour = next(iter(data.val_dataloader()))["image"]
    assert torch.equal(colour, torch.cat([image, image - 0.5, image / 2], dim=1))


def test_preprocessing_of_another_size_than_was_asked_for_is_refused():
    data = DigitsDataModule(image_size=16)
    other = Preprocessing(image_size=(8, 12), mean=(0.0,), std=(1.0,))
    with pytest.raises(DataError, match=r"image_size=16: the model sees images of 8x12"):
        data.use_preprocessing(other)
    assert data.facts.image_size == (16, 16)
    data.use_preprocessing(Preprocessing(image_size=(16, 16), mean=(0.0,), std=(1.0,)))
    DigitsDataModule().use_preprocessing(other)


def test_digit_concepts_name_the_class():
    rows = concept_matrix()
    assert len(np.unique(rows, axis=0)) == 10
    facts = DigitsDataModule().facts
    assert rows.shape == (10, len(facts.concept_names))
    for group, members in facts.concept_groups:
        if group != "top":
            assert (rows[:, list(members)].sum(1) == 1).all(), group
    assert [name for group in CONCEPTS.values() for name in group] == list(facts.concept_names)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 0}, "data.batch_size=0"),
        ({"val_fraction": 0.5}, "data.val_fraction=0.5"),
        ({"shots": 0}, "data.shots=0"),
        ({"preprocessing": {"size": 3}}, "image_size, mean, std"),
        ({"preprocessing": {"image_size": [8, 8], "mean": [0], "std": [0]}}, "std="),
        ({"preprocessing": {"image_size": [8, 8], "mean": [0], "std": [1], "interpolation": "cubic"}}, "bicubic"),
        ({"preprocessing": {"image_size": [8, 8], "mean": [0], "std": [1], "crop_pct": 2}}, "crop_pct=2"),
    ],
)
def test_bad_arguments_are_one_line(arguments, words):
    with pytest.raises(DataError, match=words) as caught:
        DigitsDataModule(**arguments)
    assert "\n" not in str(caught.value)


class Recorder(LightningModule):
    """Notes which items it sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, _):
        self.seen.append(batch["index"].tolist())
        return self.weight * batch["image"].mean()

    def validation_step(self, batch, _):
        self.validated += batch["index"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_tells_the_sampler_the_epoch(tmp_path):
    data, model = DigitsDataModule(batch_size=512, num_workers=1), Recorder()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, num_sanity_val_steps=0, **quiet).fit(
        model, data
    )
    loader = DigitsDataModule(batch_size=512).train_dataloader()
    expected = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        expected += batches(loader)
    assert model.seen == expected
    assert model.validated == 2 * list(range(len(data.val_set)))
