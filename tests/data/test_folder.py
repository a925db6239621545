"""Class folders, tars and concept tables: what is read, and what a mistake says."""

import logging
import shutil
import tarfile
from itertools import chain

import numpy as np
import pytest
import torch

from tests.data.pictures import write_folder, write_image
from tests.shared_data import shared_data
from zoo.data.errors import DataError, ImageError
from zoo.data.folder import FolderDataModule


def only(problems, *words):
    """The one problem, which holds all the words."""
    assert len(problems) == 1, problems
    assert "\n" not in problems[0]
    for word in words:
        assert word in problems[0]


def test_plain_folder_is_cut_into_three(tmp_path):
    data = FolderDataModule(root=str(write_folder(tmp_path, per_class=20)), image_size=8)
    assert data.check() == []
    assert (data.facts.class_names, data.facts.concept_names) == (("cat", "dog"), ())
    assert {name: len(part) for name, part in data.split_indices.items()} == {"train": 32, "val": 4, "test": 4}
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (32, 3, 8, 8)
    assert "concepts" not in batch
    assert data.raw("test", 0).shape == (12, 10, 3)
    assert data.item_name("test", 0).startswith("cat/")


def test_split_folders_and_their_names(tmp_path):
    for name, count in (("train", 6), ("holdout", 2)):
        write_folder(tmp_path / name, per_class=count)
    data = FolderDataModule(root=str(tmp_path), test="holdout")
    assert {name: len(part) for name, part in data.split_indices.items()} == {"train": 10, "val": 2, "test": 4}


@pytest.mark.parametrize("around", [".", "train", "./some/"])
def test_tar_gives_the_same_as_the_folder(tmp_path, around):
    write_folder(tmp_path / "folder" / "train")
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar" / "train.tar", "w") as archive:
        archive.add(tmp_path / "folder" / "train", arcname=around)
    one, two = (FolderDataModule(root=str(tmp_path / name), image_size=16) for name in ("folder", "tar"))
    one.setup()
    two.setup()
    assert one.facts == two.facts
    assert one.split_indices == two.split_indices
    for first, second in zip(one.train_set, two.train_set, strict=True):
        assert torch.equal(first["image"], second["image"])
    assert sorted(path.name for path in (tmp_path / "tar").iterdir()) == ["train.tar"]


def test_concepts_for_each_image(tmp_path):
    write_folder(tmp_path / "train", per_class=3)
    rows = [f"train/{name}/{index}.png,{index % 2},0.5,{index / 4}" for name in ("cat", "dog") for index in range(3)]
    (tmp_path / "concepts.csv").write_text("file,fur::long,fur::short,size\n" + "\n".join(reversed(rows)) + "\n")
    data = FolderDataModule(root=str(tmp_path))
    assert data.facts.concept_names == ("fur::long", "fur::short", "size")
    assert data.facts.concept_groups == (("fur", (0, 1)),)
    data.setup()
    for position, name in enumerate(data.train_set.names):
        index = int(name.split("/")[1].split(".")[0])
        assert data.train_set[position]["concepts"].tolist() == [index % 2, 0.5, index / 4]


CLASSES = "class_name,fur,tail\ncat,1,0\ndog,0,1\n"


@pytest.mark.parametrize("base", ["class_concepts.csv", "concepts.csv"])
def test_corrections_take_the_place_of_rows(tmp_path, base):
    write_folder(tmp_path / "train", per_class=3)
    rows = [f"train/{name}/{index}.png,{text}" for name, text in (("cat", "1,0"), ("dog", "0,1")) for index in range(3)]
    text = CLASSES if base.startswith("class") else "file,fur,tail\n" + "\n".join(rows)
    (tmp_path / base).write_text(text)
    table = tmp_path / "corrections.csv"
    table.write_text("file,tail,fur\ncat/1.png,0.25,0.75\ntrain/dog/2.png,0,0\n")
    data = FolderDataModule(root=str(tmp_path), concepts=str(table))
    assert data.check() == []
    assert data.facts.concept_names == ("fur", "tail")
    data.setup()
    found = {}
    for part in (data.train_set, data.val_set, data.test_set):
        found |= {name: part[i]["concepts"].tolist() for i, name in enumerate(part.names)}
    corrected = {"cat/1.png": [0.75, 0.25], "dog/2.png": [0, 0]}
    usual = {f"{name}/{i}.png": row for name, row in (("cat", [1, 0]), ("dog", [0, 1])) for i in range(3)}
    assert found == usual | corrected


def test_corrections_alone_need_every_image(tmp_path):
    write_folder(tmp_path / "train", per_class=2)
    table = tmp_path / "corrections.csv"
    rows = ["cat/0.png,1", "cat/1.png,1", "dog/0.png,0", "dog/1.png,0"]
    table.write_text("\n".join(["file,fur", *rows]))
    assert FolderDataModule(root=str(tmp_path), concepts=str(table)).facts.concept_names == ("fur",)
    table.write_text("\n".join(["file,fur", *rows[:3]]))
    only(FolderDataModule(root=str(tmp_path), concepts=str(table)).check(), "train/dog/1.png has no row")


def test_mistakes_in_corrections_are_found_together(tmp_path):
    write_folder(tmp_path, per_class=2)
    (tmp_path / "class_concepts.csv").write_text(CLASSES)
    table = tmp_path / "corrections.csv"
    table.write_text("file,fur,tails\n0.png,1,0\ncat/1.png,1,0\n1.png,0,1\nbird/1.png,1,1\n")
    problems = FolderDataModule(root=str(tmp_path), concepts=str(table)).check()
    for words in (
        "0.png may be cat/0.png or dog/0.png; write which",
        "no column 'tail'; add one",
        "'tails' is no concept of the data; remove the column (did you mean 'tail'?)",
        "bird/1.png is no image here",
    ):
        assert [line for line in problems if words in line], problems
    absent = FolderDataModule(root=str(tmp_path), concepts=str(tmp_path / "none.csv")).check()
    only(absent, "none.csv", "cannot be read")


@pytest.mark.parametrize(("name", "sizes"), [("sign_digits", (1346, 170, 170)), ("clothing10", (2761, 341, 307))])
def test_real_sets_with_class_concepts(name, sizes):
    data = FolderDataModule(root=str(shared_data(name)))
    assert data.check() == []
    assert tuple(len(part) for part in data.split_indices.values()) == sizes
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (64, 3, 64, 64)
    assert set(batch["concepts"].unique().tolist()) == {0.0, 1.0}
    if name == "sign_digits":
        digit, concepts = data.facts.class_names.index("7"), batch["concepts"]
        assert (batch["label"] == digit).any() or len(concepts)
        rows = {int(label): tuple(row.tolist()) for label, row in zip(data.train_set.labels, data.train_set.concepts)}
        assert rows[digit] == (0, 1, 1, 0, 1, 1)
        assert len(set(rows.values())) == 10


def test_damaged_image_stops_and_is_named(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "cat" / "3.png").write_bytes(b"no image")
    for workers in (0, 1):
        data = FolderDataModule(root=str(tmp_path), num_workers=workers)
        with pytest.raises(ImageError) as caught:
            list(chain(data.train_dataloader(), data.val_dataloader(), data.test_dataloader()))
        assert str(caught.value).startswith(f"{tmp_path}/cat/3.png: is not an image")
        assert "\n" not in str(caught.value)


def test_damaged_image_is_skipped_and_listed(tmp_path, caplog):
    write_folder(tmp_path)
    (tmp_path / "cat" / "3.png").write_bytes(b"no image")
    (tmp_path / "dog" / "0.png").write_bytes((tmp_path / "dog" / "0.png").read_bytes()[:80])
    rows = [f"{name}/{index}.png,{index / 8}" for name in ("cat", "dog") for index in range(6)]
    (tmp_path / "concepts.csv").write_text("file,number\n" + "\n".join(rows))
    data = FolderDataModule(root=str(tmp_path), on_error="skip")
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert [line.split(": ")[0] for line in data.skipped] == [f"{tmp_path}/cat/3.png", f"{tmp_path}/dog/0.png"]
    assert "2 of 12 images left out" in caplog.text
    assert sum(len(part) for part in data.split_indices.values()) == 10
    for items in (data.train_set, data.val_set, data.test_set):
        for item, name in zip((items[index] for index in range(len(items))), items.names):
            assert item["concepts"].item() == int(name.split("/")[1][0]) / 8


def test_missing_folder(tmp_path):
    only(FolderDataModule(root=str(tmp_path / "nowhere")).check(), "nowhere", "no such folder")
    with pytest.raises(DataError, match="no such folder"):
        FolderDataModule(root=str(tmp_path / "nowhere")).setup()


def test_too_few_images_for_three_splits(tmp_path):
    with pytest.raises(DataError, match="no items for val and test"):
        FolderDataModule(root=str(write_folder(tmp_path, per_class=2))).setup()


def test_empty_class_and_unknown_class(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "val", classes=("cat", "dgo"))
    (tmp_path / "train" / "cow").mkdir()
    problems = FolderDataModule(root=str(tmp_path)).check()
    assert len(problems) == 2
    assert "class 'cow' has no image" in problems[0]
    assert "class 'dgo' is not among those of train" in problems[1]


def test_empty_class_in_a_tar(tmp_path):
    write_folder(tmp_path / "pictures")
    (tmp_path / "pictures" / "cow").mkdir()
    for around in (".", "pictures"):
        with tarfile.open(tmp_path / "train.tar", "w") as archive:
            archive.add(tmp_path / "pictures", arcname=around)
        only(FolderDataModule(root=str(tmp_path)).check(), "train.tar: class 'cow' has no image")


def test_no_classes(tmp_path):
    write_image(tmp_path / "a.png")
    only(FolderDataModule(root=str(tmp_path)).check(), "0 class folders")


def test_splits_without_train(tmp_path):
    write_folder(tmp_path / "val")
    only(FolderDataModule(root=str(tmp_path)).check(), "has val, but no folder or tar file train")


def test_damaged_and_compressed_tars(tmp_path):
    (tmp_path / "train.tar").write_bytes(b"no tar" * 200)
    only(FolderDataModule(root=str(tmp_path)).check(), "train.tar: cannot be read as a plain tar file")
    write_folder(tmp_path / "pictures")
    with tarfile.open(tmp_path / "train.tar", "w:gz") as archive:
        archive.add(tmp_path / "pictures", arcname=".")
    shutil.rmtree(tmp_path / "pictures")
    only(FolderDataModule(root=str(tmp_path)).check(), "train.tar: cannot be read as a plain tar file")


GOOD = "class_id,class_name,furry,barks\n0,cat,1,0\n1,dog,1,1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("dog", "dgo"), ("class 'dog' has no row", "did you mean 'dgo'")),
        (GOOD + "2,cow,0,0\n", ("class_name 'cow' is no class",)),
        (GOOD.replace("1,1\n", "1\n"), ("line 3", "3 cells, but the header has 4")),
        (GOOD.replace("1,1\n", "1,2\n"), ("line 3", "barks is '2'", "0 to 1")),
        (GOOD.replace("1,1\n", "1,nan\n"), ("line 3", "barks is 'nan'")),
        (GOOD.replace("furry", "barks"), ("column 'barks' stands there twice",)),
        (GOOD.replace("class_id,class_name", "number,name"), ("no column class_id or class_name",)),
        ("class_id\n0\n1\n", ("no concept columns",)),
        ("", ("no column class_id or class_name",)),
    ],
)
def test_class_table_mistakes(tmp_path, text, words):
    write_folder(tmp_path)
    (tmp_path / "class_concepts.csv").write_text(text)
    problems = FolderDataModule(root=str(tmp_path)).check()
    assert problems
    assert "class_concepts.csv" in problems[0]
    for word in words:
        assert any(word in line for line in problems), problems


def test_image_table_mistakes_are_found_together(tmp_path):
    write_folder(tmp_path, per_class=10)
    rows = [f"cat/{index}.png,1" for index in range(10)] + ["dog/0.png,1", "dog/x.png,1"]
    (tmp_path / "concepts.csv").write_text("file,furry\n" + "\n".join(rows))
    problems = FolderDataModule(root=str(tmp_path)).check()
    assert [line.split(": ", 1)[-1] for line in problems] == [
        *(f"dog/{index}.png has no row; add one" for index in range(1, 6)),
        "... and 4 more like the last line",
        "dog/x.png is no image here; remove the row",
    ]


@pytest.mark.parametrize(("name", "value"), [("on_error", "ignore"), ("channels", 4)])
def test_bad_options(tmp_path, name, value):
    with pytest.raises(DataError, match=f"data.{name}={value}: choose"):
        FolderDataModule(root=str(tmp_path), **{name: value})


def test_fingerprint_follows_the_files(tmp_path):
    write_folder(tmp_path)

    def fingerprint():
        return FolderDataModule(root=str(tmp_path)).sources()["train"].fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    write_image(tmp_path / "cat" / "0.png", seed=77)
    assert fingerprint() != before


def test_split_of_a_folder_survives_new_images(tmp_path):
    write_folder(tmp_path, per_class=50)
    before = FolderDataModule(root=str(tmp_path))
    before.setup()
    held = set(before.test_set.names)
    write_image(tmp_path / "cat" / "05x.png")
    after = FolderDataModule(root=str(tmp_path))
    after.setup()
    assert len(held & set(after.train_set.names)) <= 2
    assert np.array_equal(np.unique(after.test_set.labels), [0, 1])
