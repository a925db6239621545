"""Images in npz files, and torchvision's sets without a network."""

import numpy as np
import pytest
from PIL import Image

from tests.shared_data import shared_data
from zoo.data.arrays import ArraysDataModule
from zoo.data.errors import DataError
from zoo.data.torchvision import SPLIT_ARGUMENTS, TorchvisionDataModule, as_source


def save(path, *, count=40, shape=(6, 5), classes=2, dtype=np.uint8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape)).astype(dtype)
    np.savez(path, images=images, labels=np.arange(count) % classes)
    return images


def test_files_become_splits(tmp_path):
    images = save(tmp_path / "train.npz")
    save(tmp_path / "test.npz", count=10)
    data = ArraysDataModule(root=str(tmp_path))
    assert data.check() == []
    assert (data.facts.class_names, data.facts.in_channels, data.facts.image_size) == (("0", "1"), 1, (6, 5))
    assert {name: len(part) for name, part in data.split_indices.items()} == {"train": 36, "val": 4, "test": 10}
    where = data.split_indices["train"][7]
    assert np.array_equal(data.raw("train", 7)[..., 0], images[where])


def test_one_file_in_colour(tmp_path):
    save(tmp_path / "all.npz", shape=(6, 6, 3))
    for root in (tmp_path, tmp_path / "all.npz"):
        data = ArraysDataModule(root=str(root), classes=["cat", "dog"])
        assert data.facts.in_channels == 3
        assert next(iter(data.train_dataloader()))["image"].shape == (32, 3, 6, 6)


@pytest.mark.parametrize(
    ("name", "sizes"), [("fashion_mnist", (27000, 3000, 5000)), ("cifar10_sample", (2400, 300, 300))]
)
def test_real_sets(name, sizes):
    data = ArraysDataModule(root=str(shared_data(name)))
    assert data.check() == []
    assert tuple(len(part) for part in data.split_indices.values()) == sizes
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (64, data.facts.in_channels, *data.facts.image_size)
    if name == "fashion_mnist":
        assert data.facts.class_names[9] == "ankle_boot"
        boot = data.train_set.concepts[data.train_set.labels == 9][0]
        assert [word for word, value in zip(data.facts.concept_names, boot) if value] == [
            "worn_on_feet",
            "has_sole",
            "covers_ankle",
        ]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((4, 2, 2), np.uint8)}, "no array labels; it has images"),
        ({"images": np.zeros((4, 2, 2)), "labels": np.arange(4)}, "images are float64; store them as uint8"),
        ({"images": np.zeros((4, 2, 2), np.uint8), "labels": np.arange(3)}, "4 images, labels of shape"),
        ({"images": np.zeros((4, 2), np.uint8), "labels": np.arange(4)}, r"images have shape \(4, 2\)"),
        ({"images": np.zeros((4, 2, 2), np.uint8), "labels": np.arange(4) - 1}, "labels -1 to 2"),
    ],
)
def test_bad_arrays(tmp_path, arrays, words):
    np.savez(tmp_path / "train.npz", **arrays)
    with pytest.raises(DataError, match=words):
        _ = ArraysDataModule(root=str(tmp_path)).facts


def test_bad_files(tmp_path):
    assert "no such folder or file" in ArraysDataModule(root=str(tmp_path / "x")).check()[0]
    assert "no train.npz" in ArraysDataModule(root=str(tmp_path)).check()[0]
    (tmp_path / "train.npz").write_bytes(b"PK\x03\x04 cut")
    assert "cannot be read as npz" in ArraysDataModule(root=str(tmp_path)).check()[0]


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "train.npz", images=np.zeros((4, 2, 2), np.uint8), labels=np.array([{}] * 4, dtype=object))
    assert "cannot be read as npz" in ArraysDataModule(root=str(tmp_path)).check()[0]


def test_class_table_for_other_classes(tmp_path):
    save(tmp_path / "train.npz")
    (tmp_path / "class_concepts.csv").write_text("class_id,class_name,x\n0,a,1\n")
    assert "labels 0 to 1; number the classes 0 to 0" in ArraysDataModule(root=str(tmp_path)).check()[0]


def test_absent_torchvision_files_are_one_line(tmp_path):
    for name in ("CIFAR10", "FashionMNIST", "Flowers102", "SVHN", "OxfordIIITPet"):
        problems = TorchvisionDataModule(name=name, root=str(tmp_path)).check()
        assert len(problems) == 1
        assert f"data.name={name}" in problems[0]
        assert "data.download=true" in problems[0]
        assert "\n" not in problems[0]
    assert not list(tmp_path.rglob("*.*"))


def test_unknown_torchvision_name():
    with pytest.raises(DataError, match="did you mean CIFAR10"):
        TorchvisionDataModule(name="cifar10")
    with pytest.raises(DataError, match="choose one of CIFAR10"):
        TorchvisionDataModule(name="ImageNet21k")


def test_every_torchvision_name_exists():
    import torchvision

    assert all(hasattr(torchvision.datasets, name) for name in SPLIT_ARGUMENTS)


def test_torchvision_sets_as_sources(tmp_path):
    """FashionMNIST written in its own format, and a set that opens one file at a time."""
    import torchvision

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    for prefix in ("train", "t10k"):
        header = bytes([0, 0, 8, 3, 0, 0, 0, 30, 0, 0, 0, 28, 0, 0, 0, 28])
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = np.arange(30, dtype=np.uint8) % 10
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 30]) + labels.tobytes())
    data = TorchvisionDataModule(name="FashionMNIST", root=str(tmp_path), val_fraction=0.4)
    assert data.check() == []
    assert data.facts.class_names[9] == "Ankle boot"
    assert {name: len(part) for name, part in data.split_indices.items()} == {"train": 20, "val": 10, "test": 30}
    assert np.array_equal(data.raw("test", 3)[..., 0], images[3])

    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.fromarray(images[0]).convert("RGB").save(tmp_path / "pictures" / name / "0.png")
    source = as_source(torchvision.datasets.ImageFolder(tmp_path / "pictures"), "pictures")
    assert source.labels.tolist() == [0, 1]
    assert np.array_equal(source.read(1).numpy(), np.stack([images[0]] * 3))
    assert source.fingerprint() == source.fingerprint()
