"""Real photographs through the real command line, a few epochs each, held against the majority class.

What full runs reach is in benchmarks/real_data.md.
"""

import json

import pytest

from tests.shared_data import shared_data
from zoo.cli import main

pytestmark = pytest.mark.slow

CPU = ("trainer.accelerator=cpu", "--json")
FASHION = ("data=npz", "trainer.limit_train_batches=60", "trainer.max_epochs=1", *CPU)
SIGNS = ("data=folder", "data.num_workers=0", "data.image_size=32", *CPU)


def trained(*words: str, tmp_path, capsys) -> dict:
    """The test metrics of a run."""
    assert main(["train", f"output_dir={tmp_path / 'outputs'}", *words]) == 0
    return json.loads(capsys.readouterr().out)["metrics"]


def test_the_recipe_for_signs_names_fingers(tmp_path, capsys):
    root = shared_data("sign_digits")
    words = ("experiment=sign_digits_cbm", f"data.root={root}", "trainer.max_epochs=6", *CPU)
    metrics = trained(*words, tmp_path=tmp_path, capsys=capsys)
    assert metrics["acc"] > 0.4  # a tenth by chance
    assert metrics["concept_acc"] > 0.9


def test_garments_with_concepts(tmp_path, capsys):
    words = (f"data.root={shared_data('clothing10')}", "trainer.max_epochs=2", "backbone.widths=[8,16,32,64]")
    metrics = trained(*SIGNS, *words, tmp_path=tmp_path, capsys=capsys)
    assert metrics["balanced_acc"] > 0.1  # what the majority class gives
    assert metrics["concept_acc"] > 0.6


def test_signs_cross_a_link(tmp_path, capsys):
    words = ("model=bottlefit", "model.network=resnet10", f"data.root={shared_data('sign_digits')}")
    limits = ("trainer.max_epochs=3", "trainer.limit_train_batches=20")
    metrics = trained(*SIGNS, *words, *limits, tmp_path=tmp_path, capsys=capsys)
    assert metrics["acc"] > 0.2  # a tenth by chance
    assert metrics["code_bytes"] == 8 + 12 * 17 * 17  # 12 channels of 8 bits behind two 2x2 convolutions


@pytest.mark.parametrize(
    "words",
    [
        ("model=cbm", "backbone.widths=[8,16,32]"),
        ("model=vib", "model.latent_dim=16", "backbone.widths=[8,16,32]"),
        ("model=timm", "model.name=resnet10t", "data.image_size=32", "trainer.limit_train_batches=30"),
        ("model=litv2", "model.embed_dim=16", "model.depths=[1,1,1,1]", "model.num_heads=[1,1,2,4]"),
    ],
    ids=lambda words: words[0],
)
def test_fashion(words, tmp_path, capsys):
    root = shared_data("fashion_mnist")
    metrics = trained(*FASHION, f"data.root={root}", *words, tmp_path=tmp_path, capsys=capsys)
    assert metrics["acc"] > 0.2  # a tenth by chance
