"""predict: files, folders and wildcards in, classes and concepts out; a broken file is one line."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import zoo


@pytest.fixture
def folder(digit_files, tmp_path):
    return shutil.copytree(digit_files, tmp_path / "pictures")


def test_json(zoo_command, trained_run, folder):
    code, out, err = zoo_command("predict", str(trained_run), str(folder), "--json")
    assert (code, err) == (0, [])
    rows = json.loads(out)
    assert [row["image"] for row in rows] == [str(folder / f"{digit}.png") for digit in (0, 1, 8)]
    assert [row["class"] for row in rows] == ["0", "1", "8"]
    assert rows[0]["concepts"]["upper_arch"] > 0.5 > rows[0]["concepts"]["upper_stem"]


def test_pixels_are_those_of_the_training(zoo_command, trained_run, folder):
    """The same picture through the data module and through the file has the same probabilities."""
    from zoo.data.digits import DigitsDataModule

    data = DigitsDataModule()
    data.setup()
    item = data.test_set[data.test_set.labels.tolist().index(8)]
    with torch.inference_mode():
        expected = zoo.load(str(trained_run))(item["image"][None]).prediction.softmax(-1).max().item()
    _, out, _ = zoo_command("predict", str(trained_run), str(folder / "8.png"), "--json")
    assert json.loads(out)[0]["probability"] == pytest.approx(expected, abs=1e-6)


def test_colour_and_another_size(zoo_command, trained_run, folder):
    Image.open(folder / "8.png").convert("RGB").resize((64, 64)).save(folder / "8.jpg")
    code, out, _ = zoo_command("predict", str(trained_run), str(folder / "*.jpg"))
    assert code == 0
    assert out.splitlines()[1].split()[1] == "8"


def test_broken_files(zoo_command, trained_run, folder):
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    (folder / "short.png").write_bytes((folder / "8.png").read_bytes()[:60])
    code, out, err = zoo_command("predict", str(trained_run), str(folder))
    assert (code, out, len(err)) == (2, "", 3)
    for line, name in zip(err, ("empty.png", "short.png", "text.jpg")):
        assert name in line
        assert "--skip" in line
    code, out, err = zoo_command("predict", str(trained_run), str(folder), "--skip", "--json")
    assert (code, len(json.loads(out)), len(err)) == (0, 3, 3)
    assert all(line.startswith("skipped: ") for line in err)
    code, _, err = zoo_command("predict", str(trained_run), str(folder / "text.jpg"), "--skip")
    assert (code, err) == (2, [f"error: {folder / 'text.jpg'}: is not an image; give another file"])


def test_nothing_to_predict(zoo_command, trained_run, tmp_path):
    code, _, err = zoo_command("predict", str(trained_run), str(tmp_path), "no/such.png", "x*.png")
    assert (code, len(err)) == (2, 3)


def test_everything_wrong_is_told_at_once_and_before_the_model_is_read(zoo_command, trained_run, folder, monkeypatch):
    monkeypatch.setattr("zoo.trained.open_trained", lambda source: pytest.fail("the model was read first"))
    (folder / "empty.png").write_bytes(b"")
    (folder / "short.png").write_bytes((folder / "8.png").read_bytes()[:60])
    code, _, err = zoo_command("predict", str(trained_run), str(folder), "no/such.png", str(folder / "x*.png"))
    assert (code, len(err)) == (2, 4)
    assert [name for line in err for name in ("no/such", "x*.png", "empty.png", "short.png") if name in line] == [
        *("no/such", "x*.png", "empty.png", "short.png")
    ]
    code, _, err = zoo_command("predict", str(trained_run), *(f"{index}.png" for index in range(100)))
    assert (code, len(err), err[-1]) == (2, 21, "error: ... and 80 more like the last line")


def test_a_table_model_reads_no_images(zoo_command, tmp_path, folder):
    from tests.zoo.conftest import train

    run = train(tmp_path, "data=synthetic", "data.samples=200", "backbone=mlp", "trainer.max_epochs=1")
    code, _, err = zoo_command("predict", str(run), str(folder / "8.png"))
    assert (code, len(err)) == (2, 1)
    assert "rows of a table" in err[0]


def test_regression_in_words():
    from zoo.artifact import ModelInfo
    from zoo.inference import in_words
    from zoo.models.contract import Output

    info = ModelInfo("m", {}, "regression", ["weight", "height"], [], [], {})
    values = np.array([[1.0, 2.0]], dtype=np.float32)
    assert in_words(Output(torch.from_numpy(values)), info) == [{"values": {"weight": 1.0, "height": 2.0}}]
