"""bench: figures of models beside plain ones, and of kernels; and the clock and the memory counter behind them."""

import json
import time
from dataclasses import dataclass

import pytest
import torch

from zoo.benchmarking import interleaved, peak_bytes, quantiles


def test_a_run_beside_its_backbone(zoo_command, trained_run):
    code, out, err = zoo_command("bench", str(trained_run), "--batch", "1,4", "--budget", "0.1", "--json")
    assert (code, err) == (0, [])
    rows = json.loads(out)["rows"]
    assert [row["batch"] for row in rows] == [1, 4]
    for row in rows:
        low, median, high = row["milliseconds"]
        assert 0 < low <= median <= high
        assert row["images_per_second"] == pytest.approx(row["batch"] / median * 1e3)
        assert row["plain"] == "its backbone alone"
        assert row["ratio"] == pytest.approx(row["plain_ms"] / median)
    assert rows[1]["peak_bytes"] > 2 * rows[0]["peak_bytes"] > 0


def test_models_of_the_catalogue(zoo_command):
    code, out, err = zoo_command("bench", "timm", "cbm", "--data", "digits", "--batch", "2", "--budget", "0.1")
    assert (code, err) == (0, [])
    lines = out.splitlines()
    assert "timm's resnet18" in lines[2]
    assert "its backbone alone" in lines[3]


def test_mistakes(zoo_command):
    assert "did you mean cbm" in zoo_command("bench", "cbn")[2][0]
    for words in (["--batch", "1,x"], ["--batch", "0"], ["--device", "cudo"]):
        code, out, err = zoo_command("bench", "cbm", *words)
        assert (code, out, len(err)) == (2, "", 1)
        assert words[0] in err[0]
    assert zoo_command("bench", "cbm", "kernels")[0] == 2
    code, _, err = zoo_command("bench", "cbn", "litv3", "cbm")
    assert (code, [line.split("'")[1] for line in err]) == (2, ["cbn", "litv3"])


def test_words_that_would_be_ignored_are_refused(zoo_command, trained_run):
    code, _, err = zoo_command("bench", str(trained_run), "--data", "shapes")
    assert (code, len(err)) == (2, 1)
    assert "has its own sizes" in err[0]
    code, _, err = zoo_command("bench", "kernels", "--batch", "3", "--budget", "1")
    assert (code, [line.split(":")[1] for line in err]) == (2, [" --batch", " --budget"])
    for name in ("cbm", "kernels"):
        code, _, err = zoo_command("bench", name, "--device", "meta")
        assert (code, err) == (2, ["error: --device meta: computes nothing; this machine has cpu"])


def test_a_batch_beyond_memory(zoo_command, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 25599999744 bytes.")

    monkeypatch.setattr("zoo.model_bench.interleaved", full)
    code, _, err = zoo_command("bench", "cbm", "--batch", "2")
    assert (code, err) == (2, ["error: --batch 2: does not fit into the memory of cpu: give less"])


def test_kernels(zoo_command, monkeypatch):
    from zoo.kernels import bench

    @dataclass(frozen=True)
    class Row:
        op: str

        def __str__(self):
            return f"row of {self.op}"

    monkeypatch.setattr(bench, "rows", lambda device: iter([Row("attention"), Row(str(device))]))
    assert zoo_command("bench", "kernels")[1] == "row of attention\nrow of None\n"
    assert json.loads(zoo_command("bench", "kernels", "--device", "cpu", "--json")[1])["rows"][1] == {"op": "cpu"}


def test_functions_take_turns():
    order = []
    times = interleaved({name: lambda name=name: order.append(name) for name in "ab"}, rounds=4)
    assert order == list("ababbaabba")
    assert [len(each) for each in times.values()] == [4, 4]
    slow = interleaved({"slow": lambda: time.sleep(0.02)}, rounds=100, budget_s=0.01)["slow"]
    assert len(slow) == 3
    assert quantiles(slow)[1] >= 20
    assert quantiles([2.0]) == (2.0, 2.0, 2.0)


def test_peak_counts_what_lives_at_a_time():
    weight = torch.zeros(1000, 1000)

    def one_after_another():
        for _ in range(3):
            weight + 1

    def all_at_once():
        return [weight + 1 for _ in range(3)]

    assert peak_bytes(weight.t) == 0
    assert peak_bytes(one_after_another) == 4_000_000
    assert peak_bytes(all_at_once) == 12_000_000
