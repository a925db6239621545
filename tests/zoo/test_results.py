"""The table at the end of a training: its order, its units, and what could not be measured."""

import json
import re

from zoo.results import LABELS, rows, show_result, text

METRICS = {
    "samples": 100,
    "concept_acc": 0.9,
    "izx_bits": 3.25,
    "acc": 0.8,
    "per_concept": {"wing": 0.75},
    "corrections": [(0, 0.8), (2, 0.95)],
    "corrections_wrong": [(0, 0.8), (2, 0.1)],
    "acc_nec5_random": 0.5,
    "acc_nec5": 0.7,
    "acc_all_wrong": 0.1,
    "correction_gain": -0.012,
    "own_figure": 2,
}


def test_controls_stand_beside_what_they_control():
    labels = [label for label, _ in rows(METRICS)]
    at = labels.index(LABELS["acc"])
    assert labels[at + 1] == LABELS["acc_all_wrong"]
    at = labels.index(LABELS["acc_nec5"])
    assert labels[at + 1] == LABELS["acc_nec5_random"]
    assert labels[-4:] == ["own_figure", "concept wing", *labels[-2:]]
    assert labels[-1] == "accuracy, 2 of 2 concept groups corrected"


def test_units():
    assert text("acc_nec5", 0.7) == text("concept_acc", 0.7) == "70.0%"
    assert text("correction_gain", -0.012) == "-1.2 points"
    assert text("leakage", 0.0) == "+0.0 points"
    assert text("macs", 1234567) == "1,234,567"
    assert text("izx_bits", 3.25) == "3.25"


def test_what_is_not_measured_has_its_reason():
    found = dict(rows({"acc": 0.8, "not_measured": {"acc_nec5": "no rows"}}))
    assert found[LABELS["acc_nec5"]] == "not measured: no rows"


def test_next_a_classifier_is_explained(split_run, trained_run, capsys):
    for run, gives in {split_run: "where in an image the answer", trained_run: "which concepts spoke"}.items():
        show_result(json.loads((run / "result.json").read_text()))
        out = capsys.readouterr().out
        assert f"next     python -m zoo explain {run} IMAGE " in out
        assert gives in out


def test_next_a_model_of_rows_is_measured(zoo_command, tmp_path):
    words = ["model=vib", "data=synthetic", "data.samples=200", "backbone=mlp", "trainer.max_epochs=1"]
    code, out, _ = zoo_command("train", *words, f"output_dir={tmp_path}")
    assert code == 0
    run = (tmp_path / "latest").resolve()
    assert f"next     python -m zoo eval {run} " in out
    for name in ("MODEL_CARD.md", "report.html"):
        text = (run / name).read_text()
        assert "python -m zoo eval" in text
        assert not re.search("zoo (explain|predict)", text)
