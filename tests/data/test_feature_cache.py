"""The cache: invisible in results, never stale, never fatal."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.data.pictures import write_folder, write_image
from zoo.data.arrays import ArraysDataModule
from zoo.data.contract import Preprocessing
from zoo.data.digits import DigitsDataModule
from zoo.data.errors import DataError
from zoo.data.feature_cache import cache_features
from zoo.data.folder import FolderDataModule
from zoo.data.paths import zoo_home


class Counting(nn.Module):
    """A small frozen encoder that counts the pictures it sees."""

    def __init__(self, channels=1):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return self.network(images)


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_same_items_order_and_bits_as_without(tmp_path):
    plain, encode = DigitsDataModule(), Counting()
    cached = cache_features(DigitsDataModule(), encode, "w", folder=tmp_path)
    assert cached.facts == plain.facts
    for split in ("train", "val", "test"):
        loaders = [getattr(module, f"{split}_dataloader")() for module in (plain, cached)]
        for epoch in (0, 2):
            for loader in loaders:
                loader.sampler.set_epoch(epoch)
            for image, feature in zip(*loaders, strict=True):
                assert "image" not in feature
                for key in ("label", "index", "concepts"):
                    assert torch.equal(image[key], feature[key])
                with torch.no_grad():
                    assert torch.equal(encode.network(image["image"]), feature["features"])
    assert encode.seen == 1797
    assert np.array_equal(cached.raw("test", 3), plain.raw("test", 3))


def test_second_use_reads_the_files(tmp_path):
    first, second = Counting(), Counting()
    one = cache_features(DigitsDataModule(), first, "w", folder=tmp_path)
    one.setup()
    two = cache_features(DigitsDataModule(), second, "w", folder=tmp_path)
    two.setup()
    assert (first.seen, second.seen) == (1797, 0)
    assert torch.equal(one.train_set.features, two.train_set.features)
    assert len(files(tmp_path)) == 3


def test_anything_that_matters_is_another_file(tmp_path):
    sharp = Preprocessing(image_size=(8, 8), mean=(0.3,), std=(0.3,))
    variants = [
        (DigitsDataModule(), "w"),
        (DigitsDataModule(), "other weights"),
        (DigitsDataModule(seed=1), "w"),
        (DigitsDataModule(preprocessing=sharp), "w"),
        (DigitsDataModule(image_size=12), "w"),
    ]
    for number, (data, key) in enumerate(variants, 1):
        encode = Counting()
        cache_features(data, encode, key, folder=tmp_path).setup()
        assert encode.seen == 1797
        assert len(files(tmp_path)) == 3 * number


def test_changed_pictures_are_encoded_again(tmp_path):
    write_folder(tmp_path / "pictures")

    def encoded():
        encode = Counting(3)
        data = FolderDataModule(root=str(tmp_path / "pictures"), image_size=8)
        cache_features(data, encode, "w", folder=tmp_path / "cache").setup()
        return encode.seen

    assert (encoded(), encoded()) == (12, 0)
    write_image(tmp_path / "pictures" / "cat" / "1.png", seed=9)
    assert (encoded(), encoded()) == (12, 0)


def test_changed_array_is_encoded_again(tmp_path):
    images = np.zeros((20, 8, 8), np.uint8)
    seen = []
    for value in (0, 0, 1):
        images[5, 5, 5] = value
        np.savez(tmp_path / "train.npz", images=images, labels=np.arange(20) % 2)
        encode = Counting()
        cache_features(ArraysDataModule(root=str(tmp_path)), encode, "w", folder=tmp_path / "cache").setup()
        seen.append(encode.seen)
    assert seen == [20, 0, 20]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_damaged_file_is_computed_again(tmp_path, damage):
    good = cache_features(DigitsDataModule(), Counting(), "w", folder=tmp_path)
    good.setup()
    for path in tmp_path.iterdir():
        content = bytearray(path.read_bytes())
        content[-5] ^= 0xFF if damage == "flipped" else 0
        path.write_bytes({"cut": content[:-100], "empty": b"", "other": b"x" * 500}.get(damage, content))
    encode = Counting()
    again = cache_features(DigitsDataModule(), encode, "w", folder=tmp_path)
    again.setup()
    assert encode.seen == 1797
    assert torch.equal(again.test_set.features, good.test_set.features)
    last = Counting()
    cache_features(DigitsDataModule(), last, "w", folder=tmp_path).setup()
    assert last.seen == 0


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    cached = cache_features(DigitsDataModule(), Counting(), "w", folder=tmp_path / "cache")
    assert next(iter(cached.train_dataloader()))["features"].shape == (64, 16)
    assert "features are not kept" in caplog.text


def test_place_is_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    assert zoo_home() == tmp_path / "home"
    cache_features(DigitsDataModule(), Counting(), "w").setup()
    assert len(list((tmp_path / "home" / "features").glob("*.safetensors"))) == 3
    monkeypatch.delenv("ZOO_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert zoo_home() == tmp_path / "xdg" / "bottleneck-zoo"


def test_encoder_is_evaluated_and_left_as_it_was(tmp_path):
    encode = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5))
    encode[2].eval()
    cached = cache_features(DigitsDataModule(), encode, "w", folder=tmp_path)
    cached.setup()
    assert [module.training for module in encode] == [True, True, False]
    assert encode[1].num_batches_tracked == 0
    expected = encode.eval()(cached.datamodule.val_set[0]["image"][None])[0]
    assert torch.allclose(cached.val_set.features[0], expected, atol=1e-6)


def test_augmented_pictures_are_refused():
    with pytest.raises(DataError, match=r"data\.augment=true"):
        cache_features(DigitsDataModule(augment=True), Counting(), "w")
