"""`search`: drawn scenes found by sentences, changes and examples."""

import json
from pathlib import Path

import pytest

from zoo.data.captions import phrase
from zoo.data.scenes import in_words
from zoo.data.shapes import ShapesDataModule


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Forty pictures: path -> what is on it."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("scenes")
    data = ShapesDataModule(train_size=1, val_size=1, test_size=40, seed=3)
    shown = {}
    for index, values in enumerate(data.scenes("test")[0]):
        path = folder / f"{index:02d}.png"
        Image.fromarray(data.raw("test", index)).save(path)
        shown[str(path)] = in_words(values)
    return shown


def found(zoo_command, scenes, *words: str) -> list[dict[str, str]]:
    code, out, err = zoo_command("search", *words, *scenes, "--json")
    assert code == 0, err
    return [scenes[row["image"]] for row in json.loads(out)]


def test_a_sentence_finds_its_scene(zoo_command, scenes):
    first = [found(zoo_command, scenes, phrase(shown))[0] for shown in list(scenes.values())[:5]]
    right = sum(a == b for a, b in zip(first, list(scenes.values())))
    assert right >= 4


def test_what_differs_is_found_and_what_is_shown_counts(zoo_command, scenes):
    assert all(shown["colour"] == "blue" for shown in found(zoo_command, scenes, "a red shape", "--but", "blue")[:3])
    path, shown = next(iter(scenes.items()))
    like = found(zoo_command, scenes, "a shape", "--like", path, "--top", "3")
    assert len(like) == 3
    assert like[0]["background"] == shown["background"]


def test_mistakes_are_one_line(zoo_command, scenes, tmp_path):
    for words, message in {
        ("a zebra", *scenes): "unknown word 'zebra'",
        ("red", str(tmp_path / "none.png")): "there is no such image",
        ("red", *scenes, "--top", "0"): "give at least 1",
        ("red", "backbone=shapes_clip"): "no images to search",
        ("red", *scenes, "--like", str(tmp_path / "none.png")): "none.png: there is no such image",
        ("red", *scenes, "backbone=convnet"): "choose a CLIP",
    }.items():
        code, _, err = zoo_command("search", *words)
        assert code == 2, message
        assert len(err) == 1
        assert message in err[0]


def test_training_it_is_refused_with_what_to_do(zoo_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = zoo_command("train", "model=cirevl", "data=shapes")
    assert code == 2
    assert len(err) == 1
    assert "python -m zoo search" in err[0]
    assert not Path("outputs").exists()
