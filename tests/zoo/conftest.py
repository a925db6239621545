"""A small catalogue of its own and the real command line, for the tests of the app."""

import subprocess
import sys
from pathlib import Path

import pytest

from zoo import catalogue
from zoo.cli import main

CBM = """\
# Concepts first, then the label.  Run: python -m zoo train model=cbm data=digits
_target_: zoo.models.concept.cbm.CBM
concept_loss_weight: 1.0
training: joint
card:
  title: Concept bottleneck model
  family: concept
  paper: "Koh et al., Concept Bottleneck Models, ICML 2020"
  url: https://arxiv.org/abs/2007.04612
  year: 2020
  license: Apache-2.0
  reference: "yewsiang/ConceptBottleneck, MIT"
  figures: [{data: CUB, metric: error, value: 0.199, note: joint}]
  checkpoints: {}
"""
LITV2 = """\
# High and low frequencies in separate heads.
_target_: zoo.models.vision.litv2.LITv2
card:
  title: LITv2
  family: vision
  paper: "Pan et al., Fast Vision Transformers with HiLo Attention, NeurIPS 2022"
  url: https://arxiv.org/abs/2205.13213
  year: 2022
  license: Apache-2.0
  checkpoints: {small: {url: "URL", sha256: "SHA256", arguments: {depth: 2}}}
"""


@pytest.fixture
def small_catalogue(tmp_path, monkeypatch) -> Path:
    """A catalogue of two models; returns the folder of its groups."""
    folder = tmp_path / "conf"
    for group, files in {
        "model": {"cbm": CBM, "litv2": LITV2.replace("URL", "https://127.0.0.1:9/a.bin").replace("SHA256", "0" * 64)},
        "data": {"digits": "", "shapes": ""},
    }.items():
        (folder / group).mkdir(parents=True)
        for name, text in files.items():
            (folder / group / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(catalogue, "conf_folder", lambda: folder)
    return folder


@pytest.fixture
def zoo_command(capsys):
    """Run a command in this process; returns its exit code, its stdout, and the lines of its stderr."""

    def run(*words: str) -> tuple[int, str, list[str]]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return run


def zoo_process(*words: str, **settings) -> subprocess.CompletedProcess:
    """Run `python -m zoo` as a user does."""
    command = [sys.executable, "-m", "zoo", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **settings)


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
    """A concept bottleneck model on the digits, right in most of them; read it, and copy what you change."""
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
