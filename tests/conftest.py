"""Small trained runs that all tests of a session share: read them, and copy what you change."""

from pathlib import Path

import pytest

from zoo.cli import main

SPLIT = (
    *("model=bottlefit", "model.network=resnet10", "model.bottleneck_channels=3", "data=shapes", "data.pixels=32"),
    *("data.train_size=64", "data.val_size=16", "data.test_size=32", "data.label_from=[colour]"),
)


def train(folder: Path, *words: str) -> Path:
    """Train in this process; returns the run's folder."""
    assert main(["train", *words, f"output_dir={folder}", "trainer.accelerator=cpu"]) == 0
    return (folder / "latest").resolve()


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """A concept bottleneck model on the digits, right in most of them."""
    words = ("backbone.widths=[16,32]", "trainer.max_epochs=4", "task.lr=0.01", "model.concept_reduction=mean")
    return train(tmp_path_factory.mktemp("concept"), *words)


@pytest.fixture(scope="session")
def split_run(tmp_path_factory) -> Path:
    """BottleFit on a few drawn scenes, three epochs."""
    return train(tmp_path_factory.mktemp("split"), *SPLIT, "trainer.max_epochs=3")


@pytest.fixture(scope="session")
def digit_files(tmp_path_factory) -> Path:
    """A folder of three digits as pictures: 0.png, 1.png and 8.png."""
    from PIL import Image

    from zoo.data.digits import DigitsDataModule

    folder, data = tmp_path_factory.mktemp("digits"), DigitsDataModule()
    data.setup()
    labels = data.test_set.labels.tolist()
    for digit in (0, 1, 8):
        Image.fromarray(data.raw("test", labels.index(digit)).squeeze(-1)).save(folder / f"{digit}.png")
    return folder
