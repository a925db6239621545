"""What a sweep leaves: a row for every job, failed ones too, and a plot whose axis and lines are the swept words."""

import csv

import pytest
from matplotlib import pyplot as plt

from zoo import config, sweep_figure
from zoo.runs import find_run
from zoo.sweep import Sweep, swept
from zoo.verbs import train


def result(acc: float, **more) -> dict:
    metrics = {"acc": acc, "samples": 10, "per_concept": {"wing": 1.0}, **more}
    return {"metrics": metrics, "validation": {"acc": acc / 2, "samples": 5}, "seconds": 1.5, "run": f"outputs/{acc}"}


@pytest.fixture
def shots(tmp_path) -> Sweep:
    return Sweep(str(tmp_path), config.sweep(["model=cbm", "data.shots=1,4,null"]))


def table(sweep: Sweep) -> list[dict[str, str]]:
    with sweep.table.open() as file:
        return list(csv.DictReader(file))


def test_only_what_differs_is_swept():
    jobs = config.sweep(["model=cbm", "+task.lr=1e-3,3e-3", "data.shots=1,null", "backbone=timm,cnn"])
    keys, values = swept(jobs)
    assert keys == ["task.lr", "data.shots", "backbone"]
    assert values[0] == [0.001, 1, "timm"]
    assert values[-1] == [0.003, None, "cnn"]


def test_a_shorthand_before_a_swept_word_does_not_hide_it():
    jobs = config.sweep(["backbone=timm:resnet18", "seed=0,1"])
    assert [job[-1] for job in jobs] == ["seed=0", "seed=1"]


def test_the_table_grows_with_every_job_and_keeps_failures(shots):
    shots.add(result(0.5))
    assert [row["data.shots"] for row in table(shots)] == ["1"]
    shots.add({"error": "error: no, never"})
    shots.add(result(0.75, concept_acc=0.9))
    first, failed, last = table(shots)
    assert first["acc"] == "0.5"
    assert first["val/acc"] == "0.25"
    assert first["concept_acc"] == ""
    assert not first["error"]
    assert failed["error"] == "error: no, never"
    assert failed["acc"] == failed["run"] == ""
    assert last["data.shots"] == "null"
    assert last["concept_acc"] == "0.9"
    assert "per_concept" not in last


def test_the_printed_table_names_failures(shots, capsys):
    for outcome in (result(0.5), {"error": "error: no disk"}, result(0.75)):
        shots.add(outcome)
    shots.print()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["data.shots", "measure", "value", "run"]
    assert "failed" in lines[3]
    assert lines[3].endswith("error: no disk")
    assert lines[4].split()[:3] == ["null", "accuracy", "0.75"]


def test_one_result_is_no_plot(shots):
    shots.add(result(0.5))
    shots.add({"error": "error: no"})
    assert not shots.draw()
    assert not shots.plot.exists()
    shots.add(result(0.75))
    assert shots.draw()
    assert shots.plot.read_bytes().startswith(b"\x89PNG")


def test_a_sweep_is_no_run(shots, tmp_path):
    assert not (tmp_path / "latest").exists()
    with pytest.raises(Exception, match="is no run"):
        find_run(str(shots.folder))


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ({"model": ["a", "b", "c"], "data.shots": [1, None]}, "data.shots"),
        ({"task.lr": [0.1, 0.2], "data.shots": [1, 2, 4]}, "data.shots"),
        ({"seed": [0, 1, 2], "task.lr": [0.1, 0.2]}, "task.lr"),
        ({"seed": [0, 1, 2], "model": ["a", "b"]}, "model"),
        ({"seed": [0, 1, 2]}, "seed"),
        ({"data.root": [None, "photos"], "seed": [0, 1]}, "data.root"),
    ],
)
def test_the_axis(columns, key):
    assert sweep_figure.axis_key(columns) == key


@pytest.mark.parametrize(
    ("axis", "places", "logarithmic"),
    [
        ([1, 2, 3], [1, 2, 3], False),
        ([0, 1, 100], [0, 1, 100], False),
        ([1, 10, None], [1, 10, 100], True),
        ([5, None], [5, 10], False),
        ([-1, 20], [-1, 20], False),
    ],
)
def test_places_on_the_axis(axis, places, logarithmic):
    assert sweep_figure.positions(axis) == (places, logarithmic)


def test_lines_ticks_and_seeds_of_the_plot(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    points = [
        ([model, shots, seed], 0.5 + 0.1 * seed)
        for model in ("heba", "apt")
        for shots in (16, None, 1)
        for seed in (0, 1)
        if (model, shots) != ("apt", 16)
    ]
    sweep_figure.draw(tmp_path / "a.png", ["model", "data.shots", "seed"], points, "accuracy")
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "16", "all"]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "data.shots"
    assert axes.get_ylabel() == "accuracy"
    heba, apt = axes.containers
    assert (heba.get_label(), apt.get_label()) == ("model=heba", "model=apt")
    assert heba.lines[0].get_xydata().tolist() == [[1, 0.55], [16, 0.55], [256, 0.55]]
    assert apt.lines[0].get_xdata().tolist() == [1, 256]


def test_a_mistake_in_the_last_job_is_found_before_the_first(zoo_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, lines = zoo_command("train", "-m", "data=digits", "data.shots=4,0", "trainer.max_epochs=1")
    assert code == 2
    where = "(in data=digits data.shots=0 trainer.max_epochs=1)"
    assert lines == [f"error: data.shots=0: give at least 1, or null for all {where}"]
    assert not (tmp_path / "outputs").exists()


def test_an_interrupted_sweep_keeps_what_is_done(zoo_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = iter([result(0.5), result(0.75)])

    def job(*_, **__):
        try:
            return next(outcomes)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(train, "_run_job", job)
    code, out, lines = zoo_command("train", "-m", "seed=0,1,2")
    assert code == 130
    assert lines == ["interrupted"]
    (csv_file,) = tmp_path.glob("outputs/sweeps/*/sweep.csv")
    assert f"table    {csv_file.relative_to(tmp_path)}" in out
    assert len(csv_file.read_text().splitlines()) == 3
