"""Every model whose recipe takes the CLIP that ships, from its first command to an exported file."""

import json
from pathlib import Path

import pytest
import yaml

from tests.journeys.killing import killed, train
from zoo import catalogue
from zoo.build import locate
from zoo.cli import main

SMALL = (
    *("data=shapes", "data.train_size=300", "data.val_size=60", "data.test_size=60"),
    *("trainer.max_epochs=8", "trainer.accelerator=cpu"),
)


def takes_the_clip_that_ships(entry: catalogue.Entry) -> bool:
    defaults = yaml.safe_load(entry.path.read_text()).get("defaults", [])
    return "shapes_clip" in [value for default in defaults for value in default.values()]


ENTRIES = [entry for entry in catalogue.models() if takes_the_clip_that_ships(entry)]


def zoo(*words: str) -> int:
    return main([str(word) for word in words])


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_it_trains_and_every_later_verb_works(entry, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    if locate(entry.target).instead_of_training:
        assert zoo("train", f"model={entry.name}", *SMALL) == 2
        return
    assert zoo("train", f"model={entry.name}", *SMALL) == 0
    run = Path("outputs/latest").resolve()
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"]["acc"] > 0.3, "chance is 1 in 12"
    assert zoo("train", f"resume={run}") == 0
    capsys.readouterr()
    assert zoo("eval", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["acc"] == pytest.approx(result["metrics"]["acc"])
    picture = draw(tmp_path)
    assert zoo("predict", run, picture, "--json") == 0
    capsys.readouterr()
    assert zoo("explain", run, picture, "--json") == 0
    explained = json.loads(capsys.readouterr().out)
    named = bool(json.loads((run / "model.json").read_text())["concept_names"])
    assert ("contributions" in explained, "occlusion" in explained) == (named, not named)
    assert zoo("export", run, "--format", "onnx") == 0


STOPS = ("data=shapes", "data.train_size=320", "data.val_size=40", "data.test_size=40", "data.batch_size=16")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("model=labo",),
        *(("model=sparse_cbm", f"model.training={training}") for training in ("l1", "contrastive", "gumbel")),
        ("model=heba",),
        ("model=apt", "model.prompts=8", "model.dropout=0.1"),
        ("model=pcbm_h", "model.source=text", "backbone=shapes_clip"),
        ("model=clip", "data.captions=3", "model.concept_weight=1"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_killed_in_mid_training_it_ends_as_if_it_was_not(words, tmp_path, monkeypatch):
    """The others have no stage: what `prepare` fits is fitted again."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    stormy.mkdir()
    words = (*STOPS, *words, "trainer.max_epochs=5", "trainer.accelerator=cpu")
    expected = train(calm, *words)
    assert killed(stormy, *words, times=2) == expected
    assert len(expected["rows"]) == 5


def draw(folder: Path) -> Path:
    from PIL import Image

    from zoo.data.shapes import ShapesDataModule

    data = ShapesDataModule(train_size=1, val_size=1, test_size=1)
    Image.fromarray(data.raw("test", 0)).save(folder / "scene.png")
    return folder / "scene.png"


def test_words_it_does_not_know_are_refused_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert zoo("train", "model=labo", "data=digits") == 2
    error = capsys.readouterr().err
    assert "unknown word" in error
    assert error.count("\n") == 1
    assert not Path("outputs").exists()
