"""Every concept model that needs no text tower, from the command line: trained, explained, exported, measured, resumed.

The small half takes a few drawn scenes; the slow half takes photographs of hands and everything that a run can do.
"""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.shared_data import shared_data
from zoo.catalogue import models
from zoo.cli import main
from zoo.errors import DONE, FAILED

TEXT_TOWER = {"apt", "cirevl", "concept_matrix_search", "heba", "labo", "sparse_cbm"}
SMALL = {
    "cbm": (),
    "cem": ("model.embedding_dim=4",),
    "concept_split": (),
    "dkvb": ("model.codebooks=8", "model.pairs=16", "model.key_dim=4", "model.key_epochs=1"),
    "ecbm": ("model.hidden=16", "model.steps=5"),
    "label_free_cbm": ("model.target=labels", "model.projection_steps=20", "model.interpretability_cutoff=-1"),
    "pcbm": ("model.num_samples=5",),
    "pcbm_h": ("model.num_samples=5", "task.lr=0.01"),
    "tf_tti": (),
}
NO_GRAPH = {"ecbm"}
SCENES = (
    "data=shapes",
    "data.pixels=16",
    "data.train_size=96",
    "data.val_size=24",
    "data.test_size=24",
    "backbone=mlp",
    "backbone.hidden=[16]",
    "trainer.max_epochs=1",
)
SIGNS = (
    "data=folder",
    "data.num_workers=0",
    "data.image_size=32",
    "backbone=convnet",
    "backbone.widths=[8,16]",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=20",
)

pytestmark = pytest.mark.filterwarnings("ignore:fewer than", "ignore:concepts that all or none")


def test_no_model_of_the_family_is_left_out():
    family = {entry.name for entry in models() if entry.family == "concept"}
    assert family == TEXT_TOWER | set(SMALL)


def call(capsys, *words: str) -> dict:
    """What a command answers as JSON."""
    code = main([*words, "--json"])
    said = capsys.readouterr()
    assert code == DONE, said.err
    return json.loads(said.out)


def picture(folder: Path) -> str:
    file = folder / "scene.png"
    Image.new("RGB", (16, 16), (196, 164, 120)).save(file)
    return str(file)


def explains_and_exports(name: str, folder: Path, capsys) -> None:
    if name != "dkvb":  # its codes have no names
        found = call(capsys, "explain", "latest", picture(folder))
        assert found["contributions"]
    if name in NO_GRAPH:
        assert main(["export", "latest"]) == FAILED
        assert "a descent of 5 steps" in capsys.readouterr().err
        call(capsys, "export", "latest", "--format", "safetensors")
        return
    parity = call(capsys, "export", "latest")["parity"]
    assert parity["agreement"] == 1
    assert parity["batch_sizes"][0] == 1 < parity["batch_sizes"][1]


@pytest.mark.parametrize("name", SMALL)
def test_scenes(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_RUN", raising=False)
    result = call(capsys, "train", f"model={name}", *SCENES, *SMALL[name], "trainer.accelerator=cpu")
    assert 0 <= result["metrics"]["acc"] <= 1
    explains_and_exports(name, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_photographs_of_hands(name, tmp_path, monkeypatch, capsys):
    """Also measured again with the same figures, and finished again after what a crash at the end would leave."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_RUN", raising=False)
    words = (f"data.root={shared_data('sign_digits')}", *SIGNS, "trainer.accelerator=cpu", *SMALL[name])
    result = call(capsys, "train", f"model={name}", *words)
    assert call(capsys, "eval", "latest")["metrics"]["acc"] == pytest.approx(result["metrics"]["acc"])
    explains_and_exports(name, tmp_path, capsys)
    run = (tmp_path / "outputs" / "latest").resolve()
    weights = (run / "model.safetensors").read_bytes()
    for file in ("result.json", "model.safetensors", "model.json"):
        (run / file).unlink()
    shutil.rmtree(run / "export")
    again = call(capsys, "train", "resume=latest")
    assert again["metrics"]["acc"] == pytest.approx(result["metrics"]["acc"])
    assert (run / "model.safetensors").read_bytes() == weights
