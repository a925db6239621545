"""eval and report: the figures of the run again, on its data or on others, and its page."""

import json
import shutil

import pytest


def test_gives_the_figures_of_the_training(zoo_command, trained_run):
    code, out, _ = zoo_command("eval", str(trained_run), "--json")
    assert code == 0
    found, expected = json.loads(out), json.loads((trained_run / "result.json").read_text())
    names = ["samples", "acc", "balanced_acc", "concept_acc", "per_concept", "corrections", "parameters", "macs"]
    names += ["acc_nec5", "acc_nec5_random", "acc_all_wrong", "correction_gain", "leakage"]
    for name in names:
        assert found["metrics"][name] == expected["metrics"][name]
    code, out, _ = zoo_command("eval", str(trained_run), "--split", "val", "--json")
    assert json.loads(out)["metrics"]["acc"] == expected["validation"]["acc"]


def test_table(zoo_command, trained_run):
    code, out, err = zoo_command("eval", str(trained_run), "data.batch_size=7")
    assert (code, err) == (0, [])
    assert out.startswith("cbm on digits (269 images of split test)")
    assert "concept upper_loop" in out
    rows = [line.split("  ")[0] for line in out.splitlines()]
    assert rows[2:4] == ["accuracy", "accuracy, all concepts set wrongly (low is good)"]
    at = rows.index("accuracy at 5 concepts a class (NEC 5)")
    assert rows[at + 1] == "the same, random directions (control)"


def test_says_how_many_items_were_learned_from(zoo_command, trained_run):
    for words, some in ((["data.batch_size=7"], False), (["data=digits"], False), (["seed=3"], True)):
        code, out, _ = zoo_command("eval", str(trained_run), *words, "--json")
        assert code == 0
        assert (json.loads(out)["learned_before"] > 100) == some
    _, out, _ = zoo_command("eval", str(trained_run), "seed=3")
    assert "items were learned from: nothing here tells of new ones" in out


def test_says_why_the_yardstick_is_not_measured(zoo_command, trained_run, tmp_path):
    for name in ("model.safetensors", "model.json"):
        shutil.copy(trained_run / name, tmp_path / name)
    code, out, _ = zoo_command("eval", str(tmp_path / "model.safetensors"))
    assert code == 0
    (line,) = [line for line in out.splitlines() if "(NEC 5)" in line]
    assert "not measured: the rows that the model was trained on are not at hand" in line
    assert "all concepts set wrongly" in out


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["data=shapes"], ["12 classes, the model knows 10", "19 concepts, the model knows 12"]),
        (["data=synthetic"], ["classes, the model knows 10", "concepts, the model knows 12", "rows of 4 numbers"]),
        (["data=tabular"], ["a task of regression, the model was trained for classification"]),
        (["model=vib"], ["takes only data=NAME"]),
        (["data.batch_sise=3"], ["did you mean batch_size"]),
        (["data.image_size=16"], ["data.image_size=16: the model sees images of 8x8: leave it out"]),
        (["data=digit"], ["did you mean digits"]),
    ],
)
def test_refuses_other_data(zoo_command, trained_run, words, lines):
    code, out, err = zoo_command("eval", str(trained_run), *words)
    assert (code, out, len(err)) == (2, "", len(lines))
    for line, expected in zip(err, lines):
        assert expected in line


def test_unknown_run(zoo_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = zoo_command("eval", "latest")
    assert (code, len(err)) == (2, 1)
    assert "there is no run" in err[0]


def test_report_is_made_again(zoo_command, trained_run):
    page = trained_run / "report.html"
    page.unlink()
    code, out, err = zoo_command("report", str(trained_run))
    assert (code, err) == (0, [])
    assert f"{trained_run}/report.html" in out
    assert page.read_text().startswith("<!doctype html>")


def test_report_of_damaged_predictions(zoo_command, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "predictions.safetensors").write_text("x")
    code, _, err = zoo_command("report", str(run))
    assert (code, len(err)) == (2, 1)
    assert "predictions.safetensors: damaged" in err[0]
