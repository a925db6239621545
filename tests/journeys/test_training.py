"""Training through the real command line: the same twice, the same after kills, the same on two processes."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest

from tests.journeys.killing import killed, outcome, train, zoo

SMALL = ("backbone.widths=[8,16]", "trainer.max_epochs=4", "trainer.accelerator=cpu")
pytestmark = pytest.mark.slow


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(tmp_path):
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    for folder in (first, second, other):
        folder.mkdir()
    words = (*SMALL, "model=vib", "data.augment=true")
    assert train(first, *words) == train(second, *words)
    assert train(other, *words, "seed=1")["weights"] != outcome(first)["weights"]


@pytest.mark.parametrize("words", [("model=vib",), ("model=cbm", "model.training=sequential")], ids=["noise", "stages"])
def test_killed_five_times_a_run_ends_as_if_it_was_not(tmp_path, words):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    stormy.mkdir()
    words = (*SMALL, *words, "trainer.max_epochs=6", "data.batch_size=16")
    expected = train(calm, *words)
    assert killed(stormy, *words, times=5) == expected
    assert len(list((stormy / "outputs").glob("*/*/2*"))) == 1
    assert not [path for path in (stormy / "outputs" / "latest" / "checkpoints").rglob("*") if path.suffix == ".tmp"]


def test_two_processes_train_to_the_metrics_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    # batch normalisation sees half a batch in each process, so the comparison is made without it; the last batch of an
    # epoch has an odd number of images, which two processes share unevenly
    words = ("backbone=mlp", "backbone.hidden=[32]", "trainer.max_epochs=6", "data.batch_size=32", "task.lr=0.007")
    alone = train(one, *words, "trainer=cpu")
    both = train(two, *words, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
    for name in ("acc", "concept_acc", "balanced_acc"):
        assert both["metrics"][name] == pytest.approx(alone["metrics"][name], abs=0.008)
    for row, other in zip(alone["rows"], both["rows"], strict=True):
        assert float(other["train/loss"]) == pytest.approx(float(row["train/loss"]), rel=0.05)
        assert float(other["val/acc"]) == pytest.approx(float(row["val/acc"]), abs=0.02)
    assert len(list((two / "outputs").glob("*/*/2*"))) == 1


def test_two_and_two_epochs_are_four(tmp_path):
    """Stopped by Ctrl-C after two epochs, a run says how to go on, and goes on with the same rate and losses."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    expected = train(whole, *SMALL, "data.batch_size=8")
    command = [sys.executable, "-m", "zoo", "train", *SMALL, "data.batch_size=8"]
    process = subprocess.Popen(command, cwd=halves, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (halves / "outputs" / "latest" / "metrics.csv").is_file():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "resume=" in out + err
    resumed = train(halves, "resume=latest")
    assert [row["lr"] for row in resumed["rows"]] == [row["lr"] for row in expected["rows"]]
    assert resumed == expected


def test_a_resumed_run_keeps_its_settings(tmp_path):
    train(tmp_path, *SMALL, "trainer.max_epochs=1")
    refused = zoo("train", "resume=latest", "task.lr=1", cwd=tmp_path)
    assert refused.returncode == 2
    assert "task.lr=1" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_sweep_leaves_a_table_and_a_plot_whatever_fails(tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    words = ("-m", *SMALL, "trainer.max_epochs=1", "output_dir=outputs,blocked", "data.shots=4,null")
    done = zoo("train", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["output_dir"], row["data.shots"]) for row in rows] == [
        ("outputs", "4"),
        ("outputs", "null"),
        ("blocked", "4"),
        ("blocked", "null"),
    ]
    for row in rows[:2]:
        assert row["acc"] == str(json.loads((tmp_path / row["run"] / "result.json").read_text())["metrics"]["acc"])
    assert all("output_dir=blocked" in row["error"] and not row["acc"] for row in rows[2:])
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    where = folder.relative_to(tmp_path)
    assert done.stdout.splitlines()[-2:] == [f"table    {where}/sweep.csv", f"plot     {where}/sweep.png"]


def test_a_sweep_as_json_is_json(tmp_path):
    done = zoo("train", "-m", *SMALL, "trainer.max_epochs=1", "seed=0,1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)
    assert [job["overrides"][-1] for job in jobs] == ["seed=0", "seed=1"]
    assert "sweep.csv" in done.stderr


@pytest.mark.parametrize("words", [(), ("model=vib",), ("model.imbalance=pos_weight",)], ids=" ".join)
def test_a_frozen_backbone_is_cached_without_changing_a_figure(words, tmp_path, monkeypatch):
    """Also where the model counts the training data before it learns."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    cached, plain = tmp_path / "cached", tmp_path / "plain"
    cached.mkdir()
    plain.mkdir()
    words = (*SMALL, *words, "backbone.frozen=true")
    first = train(cached, *words)
    assert list((tmp_path / "home").rglob("*.safetensors"))
    assert train(plain, *words, "cache=off") == first
