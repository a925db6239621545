"""Runs and models that are damaged, of another version or used wrongly, through the real command line."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.journeys.conftest import FOLDER, TINY, VIB, contents
from zoo.cli import main


def test_a_resumed_run_keeps_its_settings(refuse, damaged):
    words = ["train", f"resume={damaged}", "task.lr=1", "seed=4"]
    refuse(words, 2, "task.lr=1: a resumed run keeps its settings", "seed=4: a resumed run keeps its settings")
    refuse(["train", f"resume={damaged}", "trainer.max_epohs=2"], 2, "did you mean max_epochs")


def test_a_finished_run_prints_its_result_again(damaged, capsys):
    before, weights = json.loads((damaged / "result.json").read_text()), (damaged / "model.safetensors").read_bytes()
    assert main(["train", f"resume={damaged}", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["metrics"]["acc"] == before["metrics"]["acc"]
    assert (damaged / "model.safetensors").read_bytes() == weights


def test_the_last_epoch_is_kept_although_an_earlier_one_was_better(here, capsys):
    words = ["train", *TINY, *VIB, "task.lr=0", "trainer.max_epochs=3"]
    assert main(words) == 0
    checkpoints = here / "outputs" / "latest" / "checkpoints"
    epochs = {name: torch.load(checkpoints / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")}
    assert epochs == {"best": 0, "last": 2}
    capsys.readouterr()
    assert main(["train", "resume=latest"]) == 0
    assert "epoch" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "file", "text", "part"),
    [
        ("eval", "config.yaml", "a: [1", "config.yaml: cannot be read"),
        ("eval", "config.yaml", "seed: 0\n", "config.yaml: is not the configuration of a run"),
        ("report", "result.json", '{"metrics": ', "has no result yet: finish it with python -m zoo train resume="),
    ],
)
def test_a_damaged_run(verb, file, text, part, damaged, refuse):
    (damaged / file).write_text(text)
    refuse([verb, damaged], 2, part)


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return open, ("executed", "w")


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "pickle", "torch"])
def test_a_checkpoint_that_is_none(kind, damaged, refuse, here):
    last = damaged / "checkpoints" / "last.ckpt"
    whole, payload = last.read_bytes(), {"state_dict": Payload()}
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"none", "pickle": pickle.dumps(payload)}
    if kind == "torch":
        torch.save(payload, last)
    else:
        last.write_bytes(content[kind])
    log = damaged / "train.log"
    log.unlink()
    line = refuse(["train", f"resume={damaged}", "trainer.max_epochs=2"], 2, "last.ckpt: ", new_files=True)
    assert "remove it to begin its stage again" in line
    assert not (here / "executed").exists()


# trained models


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda d: {"recipe": {}} | {k: v for k, v in d.items() if k != "class_names"}, "lacks class_names (zoo 0"),
        (lambda d: d | {"mood": "good"}, "holds mood, which is unknown"),
        (lambda d: d | {"recipe": {}}, "lacks recipe.target or recipe.arguments"),
        (lambda d: [], "its description is damaged"),
    ],
)
def test_a_model_of_another_version(change, part, damaged, refuse):
    path = damaged / "model.safetensors"
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["zoo"])
    save_file(load_file(path), path, metadata={"zoo": json.dumps(change(description))})
    refuse(["predict", damaged, "digit.png"], 2, part)


@pytest.mark.parametrize("kind", ["truncated", "text", "pickle", "no description", "other shapes", "no network"])
def test_a_model_that_is_none(kind, damaged, refuse, here):
    path = damaged / "model.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    with safe_open(path, "pt") as file:
        description = file.metadata()["zoo"]
    if kind == "no description":
        save_file(tensors, path)
    elif kind == "other shapes":
        first = next(iter(tensors))
        save_file(tensors | {first: torch.zeros(1, 1)}, path, metadata={"zoo": description})
    elif kind == "no network":
        evil = json.loads(description)
        evil["recipe"] |= {"target": "os.mkdir", "arguments": {"path": "executed"}}
        save_file(tensors, path, metadata={"zoo": json.dumps(evil)})
    else:
        contents = {"truncated": whole[: len(whole) // 2], "text": b"no model", "pickle": pickle.dumps(Payload())}
        path.write_bytes(contents[kind])
    expected = {
        "no description": "holds no description of a zoo model",
        "other shapes": "has shape (1, 1), the model expects",
        "no network": "os.mkdir, which is no network",
    }
    refuse(["eval", damaged], 2, expected.get(kind, "not a safetensors file, or a truncated one"))
    assert not (here / "executed").exists()


def test_a_download_with_another_hash(refuse, here, trained, monkeypatch):
    from zoo import catalogue

    weights = trained / "model.safetensors"
    released = catalogue.Checkpoint("digits", weights.as_uri(), "0" * 64)
    monkeypatch.setattr(catalogue.Entry, "checkpoint", lambda self, tag=None: released)
    monkeypatch.setenv("ZOO_HOME", str(here / "home"))
    refuse(["predict", "cbm", "digit.png"], 1, "wrong hash: expected sha256 000000000000")


USES = {
    "predict an absent file": (["predict", "RUN", "gone.png"], ["gone.png: there is no such image"]),
    "predict two absent files": (["predict", "RUN", "gone.png", "lost.png"], ["gone.png: ", "lost.png: "]),
    "predict a text": (["predict", "RUN", "text.png", "digit.png"], ["text.png: "]),
    "explain an absent file": (["explain", "RUN", "gone.png"], ["gone.png: "]),
    "unknown concept": (["explain", "RUN", "digit.png", "--set", "lower_lop=1"], ["did you mean lower_loop"]),
    "value of a concept": (["explain", "RUN", "digit.png", "--set", "lower_loop=maybe"], ["lower_loop"]),
    "settings of a trained model": (["eval", "RUN", "model=vib", "task.lr=1"], ["model=vib: ", "task.lr=1: "]),
    "other classes": (["eval", "RUN", "data=shapes"], ["12 classes, the model knows 10", "19 concepts, "]),
    "predict nothing": (["predict", "RUN", ""], ["'': there is no image without a name"]),
    "picture into a folder": (["explain", "RUN", "digit.png", "--out", "photos"], ["--out photos: Is a directory"]),
    "export below a file": (["export", "RUN", "--out", "file/x"], ["is a file: give another folder"]),
    "tolerance": (["export", "RUN", "--tolerance", "nan"], ["--tolerance nan: give a number of at least 0"]),
    "export into a file": (["export", "RUN", "--out", "file"], ["--out file is a file: give a folder"]),
    "export over the run": (["export", "RUN", "--out", "RUN"], ["is a run: its model would be overwritten"]),
}


@pytest.mark.parametrize(("words", "lines"), USES.values(), ids=USES)
def test_a_mistake_in_using_a_trained_model(words, lines, refuse, trained):
    before = contents(trained)
    refuse([str(trained) if word == "RUN" else word for word in words], 2, *lines)
    assert contents(trained) == before


def test_explaining_a_model_without_concepts(refuse, here, capfd):
    refuse(["train", *FOLDER, *VIB], 0, new_files=True)
    wrong = ["explain", "latest", "gone.png", "--set", "wing=1", "--set", "bar=2", "--out", "photos"]
    nothing = "vib names no concepts: there is nothing to --set"
    refuse(wrong, 2, nothing, "gone.png: ", "--out photos: Is a directory")
    refuse(["explain", "latest", "photos/cat/0.png", "--set", "wing=1"], 2, nothing)
    assert main(["explain", "latest", "photos/cat/0.png"]) == 0
    answer, reading, _, picture = capfd.readouterr().out.splitlines()
    assert answer.startswith(("cat (", "dog ("))
    assert reading.startswith(("read most from the ", "no place alone decides"))
    assert picture == "picture  0-explained.png"
    assert (here / "0-explained.png").stat().st_size > 5000
