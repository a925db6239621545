"""README's table of the concept family is that of benchmarks/concept_family.csv; `--table` writes it again."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from benchmarks import concept_family
from benchmarks.concept_family import BEGIN, END, FIELDS, README, cell, measure, read, reason, table, with_table
from zoo.catalogue import models

METRICS = {"acc": 0.9, "acc_nec5": 0.8, "acc_nec5_random": 0.7, "acc_all_wrong": 0.1, "correction_gain": 0.05}


def answer(monkeypatch, **found) -> list:
    """Let the training answer this; returns the commands that were called."""
    called = []

    def run(command, **options):
        called.append(command)
        return SimpleNamespace(**{"returncode": 0, "stdout": "", "stderr": "", **found})

    monkeypatch.setattr(subprocess, "run", run)
    return called


def test_readme_is_current():
    if not README.is_file():
        pytest.skip("this checkout has no README.md")
    text = README.read_text(encoding="utf-8")
    assert with_table(text, table(read().values())) == text


def test_rows_are_models_of_the_family_in_one_setting():
    assert set(read()) <= {entry.name for entry in models() if entry.family == "concept"}
    assert len({row["setting"] for row in read().values()}) == 1


def test_a_row_is_what_the_training_answers(monkeypatch):
    result = {"seconds": 3.0, "metrics": METRICS | {"concept_acc": 0.95}}
    called = answer(monkeypatch, stdout=json.dumps(result))
    row = measure("pcbm_h", ["data=digits"])
    assert called[0][2:7] == ["zoo", "train", "model=pcbm_h", "data=digits", "task.lr=0.01"]
    assert (row["acc"], row["seconds"], row["correction_gain"], row["note"]) == ("0.9", "3", "0.05", "")
    text = table([row])
    assert "| `pcbm_h` | 90.0 % | 80.0 % | 70.0 % | 95.0 % | +5.0 | 10.0 % | 3 |" in text
    assert "all on `data=digits`" in text
    assert "`pcbm_h` with `task.lr=0.01`." in text


def test_what_cannot_be_trained_has_a_reason(monkeypatch):
    answer(monkeypatch, returncode=2, stderr="warning\nerror: model: it needs words: take a CLIP\n")
    row = measure("labo", ["data=digits"])
    assert row["note"] == "it needs words"
    other = dict(row, model="sparse_cbm", own="")
    assert table([row, other]).endswith("\n\n`labo`, `sparse_cbm`: it needs words.\n")
    assert "| `labo`" not in table([row])
    assert measure("cirevl", [])["note"] == "no classes, it finds images"
    assert reason("") == "no message"


def test_a_model_without_named_concepts_says_so(monkeypatch):
    answer(monkeypatch, stdout=json.dumps({"seconds": 1.0, "metrics": {"acc": 0.5}}))
    assert measure("heba", [])["note"] == "no named concepts"
    answer(monkeypatch, stdout=json.dumps({"seconds": 1.0, "metrics": {"acc": 0.5, "acc_nec5": 0.4}}))
    assert measure("labo", [])["note"] == "no labels for the chosen words"


def test_csv_round_trip(monkeypatch, tmp_path):
    monkeypatch.setattr(concept_family, "FIGURES", tmp_path / "figures.csv")
    row = dict.fromkeys(FIELDS, "") | {"model": "cbm", "setting": "data=digits", "note": 'a "note", with commas'}
    concept_family.write([row])
    assert concept_family.read() == {"cbm": row}


def test_cells_and_markers():
    assert [cell("acc", "0.987"), cell("acc", ""), cell("correction_gain", "-0.1")] == ["98.7 %", "-", "-10.0"]
    assert with_table(f"a\n{BEGIN}\nold\n{END}\nb", "new\n") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="markers"):
        with_table("# Zoo", "new\n")
