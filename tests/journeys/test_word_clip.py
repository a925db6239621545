"""Own images whose concepts are words: a small CLIP learns to read them, and then carries the models made of words."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.cli import main

TONES = {"ruby": (200, 30, 40), "jade": (30, 180, 90), "ink": (30, 30, 60)}
SMALL = ("data.num_workers=0", "trainer.accelerator=cpu")


def photographs(root: Path, *, each: int = 24) -> Path:
    """Three classes, by the tone of a patch and whether it is banded; concepts.csv says both."""
    rng, rows = np.random.default_rng(0), []
    for name, (tone, banded) in {"kilim": ("ruby", 1), "meadow": ("jade", 0), "night_sky": ("ink", 0)}.items():
        for index in range(each):
            picture = rng.integers(180, 256, (64, 64, 3), dtype=np.uint8)
            picture[8:56, 8:56] = TONES[tone]
            if banded:
                picture[8:56:8] = 250
            file = root / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
            rows.append(f"{name}/{index}.png,{banded},{int(tone == 'jade')},{int(tone != 'jade')}")
    (root / "concepts.csv").write_text("\n".join(["file,has_bands,hue::jade,hue::other", *rows]) + "\n")
    return root


def zoo(capsys, *words: object) -> dict:
    code = main([*map(str, words), "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return json.loads(said.out)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ZOO_RUN", raising=False)
    return tmp_path


@pytest.mark.slow
def test_a_clip_of_one_s_own_carries_labo(place, capsys):
    data = ("data=folder", f"data.root={photographs(place / 'photos')}", *SMALL)
    words = ("experiment=word_clip", f"data.root={place / 'photos'}", *SMALL, "trainer.max_epochs=6")
    learnt = zoo(capsys, "train", *words, "data.augment=false")["metrics"]
    assert learnt["acc"] > 0.6, "chance is 1 in 3"
    assert learnt["word_auc"] > 0.8
    clip = Path("outputs/latest").resolve()
    known = json.loads((clip / "model.json").read_text())["recipe"]["backbone"]["arguments"]["words"]
    assert {"kilim", "bands", "jade", "night", "photo"} <= set(known)
    assert zoo(capsys, "train", f"resume={clip}")["metrics"]["acc"] == learnt["acc"]

    labo = zoo(capsys, "train", "model=labo", "backbone=word_clip:latest", *data, "model.normalise=true")
    assert labo["metrics"]["acc"] > 0.6
    run = Path("outputs/latest").resolve()
    assert zoo(capsys, "eval", run)["metrics"]["acc"] == pytest.approx(labo["metrics"]["acc"])
    assert zoo(capsys, "explain", run, place / "photos/kilim/0.png")["contributions"]
    assert zoo(capsys, "export", run, "--format", "onnx")["parity"]["agreement"] == 1
    weights = (run / "model.safetensors").read_bytes()
    for file in ("result.json", "model.safetensors", "model.json"):
        (run / file).unlink()
    again = zoo(capsys, "train", f"resume={run}")
    assert again["metrics"]["acc"] == labo["metrics"]["acc"]
    assert (run / "model.safetensors").read_bytes() == weights
    found = zoo(capsys, "search", "jade", "photos/kilim/0.png", "photos/meadow/0.png", f"backbone=word_clip:{clip}")
    assert found[0]["image"].endswith("meadow/0.png")


def test_a_word_that_the_run_does_not_know_is_one_line_before_anything_starts(place, capsys):
    root = photographs(place / "photos", each=8)
    words = ("data=folder", f"data.root={root}", *SMALL, "trainer.max_epochs=1", "cache=off")
    zoo(capsys, "train", "model=clip", *words)
    clip = Path("outputs/latest").resolve()
    table = (root / "concepts.csv").read_text()
    (root / "concepts.csv").write_text(table.replace("has_bands", "has_band"))
    for command in ("check", "train"):
        assert main([command, "model=labo", f"backbone=word_clip:{clip}", *words]) == 2
        error = capsys.readouterr().err
        assert "unknown word 'band' in 'has_band': did you mean bands" in error
        assert error.count("\n") == 1
    assert Path("outputs/latest").resolve() == clip


@pytest.mark.parametrize(
    ("backbone", "line"),
    [
        ("word_clip:latest", "there is no run below outputs yet"),
        ("word_clip:nowhere", "no weights 'nowhere' and there is no such file"),
        ("word_clip", "its weights are random and do not learn here: give backbone.pretrained"),
    ],
)
@pytest.mark.parametrize("model", ["labo", "heba"])
def test_a_run_that_is_not_there_is_one_line(model, backbone, line, place, capsys):
    assert main(["check", f"model={model}", "data=shapes", f"backbone={backbone}"]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
