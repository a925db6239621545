"""PCBM from a user's own example images: NAME/positives and NAME/negatives, through the real command line."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from zoo.data.shapes import ShapesDataModule

DATA = ("data=shapes", "data.train_size=200", "data.val_size=40", "data.test_size=100", "backbone=shapes_clip")
COLOURS = ("colour::red", "colour::green", "colour::blue", "colour::yellow")


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    """Fifty scenes on each side of each colour; not those of the data."""
    root, data = tmp_path_factory.mktemp("examples"), ShapesDataModule(test_size=300, seed=9)
    data.setup()
    labels, names = torch.as_tensor(data.test_set.concepts), data.facts.concept_names
    for name in COLOURS:
        for side, value in (("positives", 1), ("negatives", 0)):
            (root / name / side).mkdir(parents=True)
            for row in (labels[:, names.index(name)] == value).nonzero().flatten()[:50].tolist():
                Image.fromarray(data.raw("test", row)).save(root / name / side / f"{row}.png")
    return root


@pytest.mark.parametrize("model", ["pcbm", "pcbm_h"])
def test_concepts_are_learned_from_folders(zoo_command, examples, tmp_path, model):
    """The saved model needs the folders no more, and sees the colours of scenes that it never saw."""
    folders = shutil.copytree(examples, tmp_path / "examples")
    words = [
        *DATA,
        f"model={model}",
        f"model.concept_images={folders}",
        "data.label_from=[colour]",
        "model.num_samples=25",
    ]
    code, _, err = zoo_command("train", *words, "trainer.max_epochs=1", f"output_dir={tmp_path / 'out'}")
    assert (code, err) == (0, [])
    shutil.rmtree(folders)
    run = tmp_path / "out" / "latest"
    fitted = zoo.load(str(run))
    assert fitted.concept_names == tuple(sorted(COLOURS))
    assert fitted.accuracies[:, 1].min() > 0.7
    data = ShapesDataModule(train_size=200, val_size=40, test_size=100, label_from=["colour"])
    data.use_preprocessing(fitted.info.transform)
    data.setup()
    with torch.inference_mode():
        output = fitted(torch.stack([item["image"] for item in data.test_set]))
    columns = [data.facts.concept_names.index(name) for name in fitted.concept_names]
    truth = torch.as_tensor(data.test_set.concepts)[:, columns] > 0.5
    assert ((output.concepts > 0.5) == truth).float().mean() > 0.85
    assert (output.prediction.argmax(1) == torch.as_tensor(data.test_set.labels)).float().mean() > 0.85
    assert (fitted.range.absent < fitted.range.present).all()


def test_labels_measure_concepts_of_the_same_names(examples, tmp_path):
    """They stand in the data's order then, not in that of the folders."""
    names = ShapesDataModule().facts.concept_names
    for name in names:
        shutil.copytree(examples / COLOURS[0], tmp_path / name)
    model = zoo.create_model("pcbm", data="shapes", concept_images=str(tmp_path))
    assert model.concept_names == names
    assert sorted(names) != list(names)


def test_everything_wrong_is_told_before_training(zoo_command, examples, tmp_path):
    folders = shutil.copytree(examples, tmp_path / "examples")
    shutil.rmtree(folders / COLOURS[0] / "negatives")
    for side in ("positives", "negatives"):
        shutil.rmtree(folders / COLOURS[1] / side)
        (folders / COLOURS[1] / side).mkdir()
    shutil.copy(next((folders / COLOURS[2] / "positives").iterdir()), folders / COLOURS[1] / "negatives")
    words = ["check", *DATA, "model=pcbm", f"model.concept_images={folders}"]
    code, _, err = zoo_command(*words, "task.lr=-1")
    assert code == 2
    assert [line.removeprefix(f"error: {folders}/").split(";")[0] for line in err[:-1]] == [
        "colour::green/positives: holds no image",
        "colour::green/negatives: holds 1 image",
        "colour::red/negatives: there is no such folder",
    ]
    assert "lr=-1" in err[-1]


def test_images_that_cannot_be_read_are_named(zoo_command, examples, tmp_path):
    folders = shutil.copytree(examples, tmp_path / "examples")
    (folders / COLOURS[0] / "positives" / "a.png").write_text("no picture")
    (folders / COLOURS[0] / "positives" / "notes.txt").write_text("is no image and is left alone")
    whole = next((folders / COLOURS[3] / "negatives").iterdir())
    whole.write_bytes(whole.read_bytes()[:200])
    words = ["train", *DATA, "model=pcbm", f"model.concept_images={folders}", f"output_dir={tmp_path / 'out'}"]
    code, _, err = zoo_command(*words)
    assert (code, len(err)) == (2, 2)
    assert "a.png: is not an image; replace or remove it" in err[0]
    assert f"{whole}: is damaged" in err[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.concept_images=nowhere"], "concept_images=nowhere: there is no such folder; give one with NAME/pos"),
        (["model.concept_images=."], "concept_images=.: holds no folder of a concept; make NAME/positives"),
        (["model.concept_images=.", "model.source=text"], "concept_images are for source=examples"),
        (["model.concept_images=.", "model.concepts=[red]"], "concept_images are for source=examples, and name their"),
    ],
)
def test_a_folder_that_cannot_be(zoo_command, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    code, _, err = zoo_command("check", *DATA, "model=pcbm", *words)
    assert (code, len(err)) == (2, 1)
    assert line in err[0]


def test_rows_of_a_table_have_no_images(zoo_command, examples):
    words = ["check", "data=synthetic", "backbone=mlp", "model=pcbm", f"model.concept_images={examples}"]
    code, _, err = zoo_command(*words)
    assert (code, len(err)) == (2, 1)
    assert "shows concepts in images, and these data are rows of a table" in err[0]
