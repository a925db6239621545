"""list, info and cp, over a small catalogue."""

import json
import os

import pytest

from tests.zoo.conftest import zoo_process

pytestmark = pytest.mark.usefixtures("small_catalogue")


@pytest.mark.slow
def test_a_copied_recipe_is_a_model(tmp_path):
    assert zoo_process("cp", "cbm", "mine.yaml", cwd=tmp_path).returncode == 0
    finished = zoo_process("check", "model=mine.yaml", "data=digits", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("ok: mine on digits")


def test_list(zoo_command):
    code, out, err = zoo_command("list")
    assert (code, err) == (0, [])
    head, *rows = out.splitlines()
    assert head.split() == ["name", "family", "what", "it", "is", "year", "weights"]
    assert [row.split()[0] for row in rows] == ["cbm", "litv2"]
    assert "\x1b" not in out


def test_list_json(zoo_command):
    _, out, _ = zoo_command("list", "lit*", "--json")
    assert json.loads(out) == [
        {
            "name": "litv2",
            "family": "vision",
            "title": "LITv2",
            "year": 2022,
            "paper": "Pan et al., Fast Vision Transformers with HiLo Attention, NeurIPS 2022",
            "checkpoints": ["small"],
        }
    ]
    assert json.loads(zoo_command("list", "x*", "--json")[1]) == []


def test_list_finds_nothing(zoo_command):
    assert zoo_command("list", "cbn") == (2, "", ["error: no model matches 'cbn': did you mean cbm?"])


def test_info(zoo_command):
    code, out, err = zoo_command("info", "cbm")
    assert (code, err) == (0, [])
    for text in (
        "Concept bottleneck model (concept, 2020)",
        "Concepts first, then the label.",
        "https://arxiv.org/abs/2007.04612",
        "python -m zoo train model=cbm data=digits",
        "model.concept_loss_weight",
        "0.199",
    ):
        assert text in out
    assert "litv2:small" in zoo_command("info", "litv2")[1]


def test_info_json(zoo_command):
    found = json.loads(zoo_command("info", "cbm", "--json")[1])
    assert found["arguments"] == {"concept_loss_weight": 1.0, "training": "joint"}
    assert found["command"] == "python -m zoo train model=cbm data=digits"


def test_cp(zoo_command, small_catalogue, tmp_path):
    mine = tmp_path / "mine.yaml"
    code, out, err = zoo_command("cp", "cbm", str(mine))
    assert (code, err) == (0, [])
    assert f"python -m zoo train model={mine}" in out
    assert mine.read_bytes() == (small_catalogue / "model" / "cbm.yaml").read_bytes()
    assert zoo_command("cp", "litv2", str(tmp_path))[0] == 0
    assert (tmp_path / "litv2.yaml").is_file()


def test_cp_overwrites_only_when_told(zoo_command, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("edited")
    code, _, err = zoo_command("cp", "cbm", str(mine))
    assert (code, err) == (2, [f"error: {mine} exists: choose another name, or overwrite it with --force"])
    assert mine.read_text() == "edited"
    assert zoo_command("cp", "cbm", str(mine), "--force")[0] == 0
    assert mine.read_text() != "edited"


@pytest.mark.parametrize(
    ("name", "dest", "line"),
    [
        ("cbn", "a.yaml", "unknown model 'cbn': did you mean cbm?"),
        ("cbm", "a.txt", "a recipe's name ends in .yaml"),
        ("cbm", "absent/a.yaml", "make it first"),
    ],
)
def test_cp_mistakes(zoo_command, tmp_path, name, dest, line):
    code, out, err = zoo_command("cp", name, str(tmp_path / dest))
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert line in err[0]
    assert not list(tmp_path.glob("*.*"))


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_cp_into_a_read_only_folder(zoo_command, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    code, _, err = zoo_command("cp", "cbm", str(folder))
    assert code == 2
    assert len(err) == 1
    assert "cannot be written: Permission denied" in err[0]
