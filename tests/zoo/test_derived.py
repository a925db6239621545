"""edit, ask and adapt: what can be done with a trained concept model, each change in a folder of its own."""

import json
import shutil

import pytest
import torch

import zoo
from zoo.artifact import describe, save_model
from zoo.build import create_model
from zoo.data.digits import DigitsDataModule


@pytest.fixture
def saved(tmp_path):
    """Save a catalogue model with random weights, as if trained on the digits; returns its folder."""

    def save(name, **arguments):
        torch.manual_seed(0)
        data, folder = DigitsDataModule(), tmp_path / name
        model = create_model(name, data="digits", **arguments)
        folder.mkdir()
        save_model(model, describe(model, name, data.facts, data.preprocessing, "digits"), folder)
        return folder

    return save


def test_edit(zoo_command, saved, tmp_path):
    folder = saved("pcbm")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    words = ["--class", "8", "--concept", "lower_loop", "--concept", "top_bar", "--normalise"]
    code, out, err = zoo_command("edit", str(folder), *words, "--out", str(tmp_path / "new"), "--json")
    assert (code, err) == (0, [])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    found = json.loads(out)
    assert len(found["accuracy"]) == 2
    old, new = zoo.load(str(folder)), zoo.load(str(tmp_path / "new"))
    names = old.info.concept_names
    columns = [names.index("lower_loop"), names.index("top_bar")]
    assert (new.classifier.weight[8, columns] == 0).all()
    assert new.classifier.weight[8].abs().sum().item() == pytest.approx(old.classifier.weight[8].abs().sum().item())
    others = torch.arange(10) != 8
    assert torch.equal(new.classifier.weight[others], old.classifier.weight[others])
    assert new.info.extra["edit"] == [found["edit"]]
    code, _, err = zoo_command("edit", str(folder), *words, "--out", str(tmp_path / "new"))
    assert (code, len(err)) == (2, 1)


def test_edits_of_a_run_stay_runs(zoo_command, trained_run, saved, tmp_path):
    """The new folder knows its data, gets a free name, and the old run is still there."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    shutil.copy(saved("pcbm") / "model.safetensors", run / "model.safetensors")
    for name in ("run-edit", "run-edit-2"):
        code, out, err = zoo_command("edit", str(run), "--class", "1", "--concept", "top_bar")
        assert (code, err) == (0, [])
        assert f"wrote    {tmp_path / name}" in out
        assert (tmp_path / name / "config.yaml").is_file()
    edited = tmp_path / "run-edit"
    before = (edited / "model.safetensors").read_bytes()
    says = {
        "train": "edit or adapt changed its model, which a training would undo: start a new run",
        "report": "edit and adapt write no result to report: python -m zoo eval",
    }
    for words in (["train", f"resume={edited}"], ["report", str(edited)]):
        code, _, err = zoo_command(*words)
        assert (code, len(err)) == (2, 1)
        assert says[words[0]] in err[0]
    assert (edited / "model.safetensors").read_bytes() == before


def test_edit_mistakes(zoo_command, saved, trained_run, tmp_path):
    folder = saved("pcbm")
    for words, hint in [
        (["--class", "88", "--concept", "top_bar"], "unknown class '88'"),
        (["--class", "8", "--concept", "top_baar"], "did you mean top_bar"),
    ]:
        code, _, err = zoo_command("edit", str(folder), *words)
        assert (code, len(err)) == (2, 1)
        assert hint in err[0]
    code, _, err = zoo_command("edit", str(folder), "--class", "88", "--concept", "top", "--concept", "bar")
    assert (code, [line.split("'")[1] for line in err]) == (2, ["88", "top", "bar"])
    (tmp_path / "file").write_text("")
    for out, part in {"file": "something already", "file/new": "no folder can be made in"}.items():
        words = ["--class", "8", "--concept", "top_bar", "--out", str(tmp_path / out)]
        code, _, err = zoo_command("edit", str(folder), *words)
        assert (code, len(err)) == (2, 1)
        assert f"--out {tmp_path / out}: " in err[0]
        assert part in err[0]
    code, _, err = zoo_command("edit", str(trained_run), "--class", "8", "--concept", "top_bar")
    assert (code, len(err)) == (2, 1)
    assert "model=pcbm" in err[0]


@pytest.mark.parametrize("estimator", ["enumerate", "sample", "empirical"])
def test_ask(zoo_command, saved, estimator):
    queries = ["p(top_bar)", "p(top_bar=0)"]
    words = ["--estimator", estimator, "--images", "8", "--json"]
    code, out, err = zoo_command("ask", str(saved("ecbm")), *queries, *words)
    assert (code, err) == (0, [])
    found = json.loads(out)
    assert found["images"] == 8
    assert sum(found["answers"].values()) == pytest.approx(1, abs=1e-5)


def test_ask_tells_before_it_counts(zoo_command, saved):
    many = saved("ecbm", concept_names=[f"c{number}" for number in range(13)], concept_groups=())
    words = ["--estimator", "enumerate", "--images", "0"]
    assert zoo_command("ask", str(many), "p(c1)", "p(c99)", *words)[2] == [
        "error: query 'p(c99)': unknown concept 'c99': did you mean c9?",
        "error: --estimator enumerate: 13 concepts are too many (limit 12): take sample or empirical",
        "error: --images 0: give at least 1",
    ]


def test_ask_mistakes(zoo_command, saved, trained_run):
    folder = saved("ecbm")
    for words, hint in [
        (["p(top_baar)"], "did you mean top_bar"),
        (["top_bar"], "write it like"),
        (["p(top_bar)", "--images", "0"], "at least 1"),
        (["p(top_bar | )"], "cannot read ''"),
        (["p(top_bar)", "p(top_bar | top_bar=0, top_bar=1)"], "query 'p(top_bar | top_bar=0, top_bar=1)': the cond"),
    ]:
        code, _, err = zoo_command("ask", str(folder), *words)
        assert (code, len(err)) == (2, 1)
        assert hint in err[0]
    code, _, err = zoo_command("ask", str(folder), "p(a)", "p(top_bar)", "x")
    assert (code, [line.split("'")[1] for line in err]) == (2, ["p(a)", "x"])
    assert "model=ecbm" in zoo_command("ask", str(trained_run), "p(top_bar)")[2][0]


def test_ask_averages_over_no_other_images_than_the_run_s(zoo_command, saved):
    folder = saved("ecbm")
    model = zoo.load(str(folder))
    model.info.data = "folder"
    save_model(model, model.info, folder)
    code, out, err = zoo_command("ask", str(folder), "p(top_bar)")
    assert (code, out, len(err)) == (2, "", 1)
    assert "there are only" in err[0]


@pytest.fixture
def support(digit_files, tmp_path):
    """A folder for each of three digits."""
    for digit in (0, 1, 8):
        folder = tmp_path / "support" / str(digit)
        folder.mkdir(parents=True)
        shutil.copy(digit_files / f"{digit}.png", folder)
    return tmp_path / "support"


def test_adapt(zoo_command, saved, support, tmp_path):
    folder = saved("tf_tti")
    before = (folder / "model.safetensors").read_bytes()
    words = ["--images", str(support), "--out", str(tmp_path / "new"), "--json"]
    code, out, err = zoo_command("adapt", str(folder), *words)
    assert (code, err) == (0, [])
    found = json.loads(out)["adapt"]
    assert found["images"] == 3
    assert found["right"][1] >= found["right"][0]
    assert (folder / "model.safetensors").read_bytes() == before
    old, new = zoo.load(str(folder)), zoo.load(str(tmp_path / "new"))
    assert (old.domain, new.domain) == ("source", "target")
    assert torch.equal(old.concept_layer.weight, new.concept_layer.weight)


def test_adapt_a_plain_concept_bottleneck(zoo_command, trained_run, support, tmp_path):
    """It becomes a tf_tti that knows its training images, and is the old model on its own domain."""
    new = tmp_path / "new"
    code, _, err = zoo_command("adapt", str(trained_run), "--images", str(support), "--out", str(new))
    assert (code, err) == (0, [])
    old, repaired = zoo.load(str(trained_run)), zoo.load(str(new))
    assert (type(repaired).__name__, repaired.info.name, repaired.domain) == ("TFTTI", "tf_tti", "target")
    assert repaired.source_std.count_nonzero() > repaired.source_std.numel() / 2
    repaired.domain = "source"
    images = torch.rand(4, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(old(images).prediction, repaired(images).prediction)
    assert zoo_command("eval", str(new))[0] == 0


def test_adapt_mistakes(zoo_command, saved, support, tmp_path):
    folder = saved("tf_tti")
    (support / "8" / "broken.png").write_bytes(b"")
    code, _, err = zoo_command("adapt", str(folder), "--images", str(support))
    assert (code, len(err)) == (2, 1)
    assert "broken.png" in err[0]
    assert "--skip" in err[0]
    (support / "2").mkdir()
    code, _, err = zoo_command("adapt", str(folder), "--images", str(support))
    assert (code, len(err)) == (2, 2)
    assert "holds no images" in err[0]
    only = support.with_name("broken")
    shutil.copytree(support, only, ignore=lambda _, names: [name for name in names if name not in ("8", "broken.png")])
    code, _, err = zoo_command("adapt", str(folder), "--images", str(only), "--skip")
    assert (code, err) == (2, [f"error: {only}: none of its files can be read: give images"])
    (support / "eight").mkdir()
    code, _, err = zoo_command("adapt", str(folder), "--images", str(support))
    assert (code, len(err)) == (2, 1)
    assert "eight: no class of the model" in err[0]
    for path in (tmp_path / "nowhere", support / "8"):
        assert zoo_command("adapt", str(folder), "--images", str(path))[0] == 2
    assert "model=tf_tti" in zoo_command("adapt", str(saved("pcbm")), "--images", str(support))[2][0]


@pytest.mark.parametrize("arguments", [{"head_hidden": [8]}, {"extra_dims": 2}, {"pool": "max"}])
def test_adapt_refuses_a_head_on_more_than_concepts_before_it_loads(
    zoo_command, saved, support, tmp_path, monkeypatch, arguments
):
    folder = saved("cbm", **arguments)
    monkeypatch.setattr("zoo.trained.load", lambda source: pytest.fail("the weights were read"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("")
    code, _, err = zoo_command("adapt", str(folder), "--images", str(support), "--out", str(tmp_path / "new"))
    assert (code, len(err)) == (2, 2)
    assert "head_hidden cannot be adapted without training: train model=tf_tti on these data" in err[0]
    assert "there is something already" in err[1]
