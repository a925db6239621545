"""Completion: verbs, options, models, runs and configuration values, in Python and through a real bash."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.completion import SCRIPTS, candidates
from zoo.parser import verb_names

pytestmark = pytest.mark.usefixtures("small_catalogue")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (["tr"], ["train"]),
        (["--v"], ["--version"]),
        (["info", ""], ["cbm", "litv2"]),
        (["info", "c"], ["cbm"]),
        (["info", "cbm", ""], []),
        (["info", "--json", "l"], ["litv2"]),
        (["list", "--j"], ["--json"]),
        (["download", "cbm", "l"], ["litv2"]),
        (["cp", "cbm", "./"], []),
        (["train", "mo"], ["model="]),
        (["train", "model="], ["model=cbm", "model=litv2"]),
        (["train", "model=cbm", "data=d"], ["data=digits"]),
        (["train", "model=cbm", "task.lr=1", ""], ["data=", "model=", "resume="]),
        (["train", "--cfg", ""], ["job"]),
        (["completion", "z"], ["zsh"]),
        (["no-such-verb", ""], []),
    ],
)
def test_candidates(line, found):
    assert candidates(line) == found


def test_first_word():
    assert candidates([""]) == candidates([]) == [*verb_names(), "--help", "--version"]


def test_runs(tmp_path, monkeypatch):
    for stamp in ("2026-01-01_00-00-00", "2026-01-02_00-00-00"):
        run = tmp_path / "outputs" / "supervised" / "cbm-digits" / stamp
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("")
    (run.parent / "latest").symlink_to(run.name)
    monkeypatch.chdir(tmp_path)
    folder = Path("outputs/supervised/cbm-digits")
    newest_first = ["latest", str(folder / "2026-01-02_00-00-00"), str(folder / "2026-01-01_00-00-00")]
    assert candidates(["push", ""]) == newest_first
    assert candidates(["train", "resume="]) == [f"resume={run}" for run in newest_first]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts(zoo_command, shell):
    code, out, err = zoo_command("completion", shell)
    assert (code, err) == (0, [])
    assert "zoo completion --line" in out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=out, text=True, check=True)


@pytest.mark.parametrize("words", [["completion"], ["completion", "bsh"]])
def test_unknown_shell(zoo_command, words):
    code, _, err = zoo_command(*words)
    assert (code, len(err)) == (2, 1)
    assert "bash" in err[0]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("zoo dow", "download"),
        ("zoo train trainer=cp", "cpu"),
        ("zoo train trainer=cpu trai", "trainer="),
        ("zoo cp --f", "--force"),
    ],
)
def test_in_bash(tmp_path, line, reply):
    command_in(tmp_path)
    script = f"""
        PATH={tmp_path}:$PATH
        eval "$(zoo completion bash)"
        compopt() {{ :; }}
        COMP_LINE='{line}' COMP_POINT={len(line)}
        _zoo
        echo "${{COMPREPLY[@]}}"
    """
    finished = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout == f"{reply}\n"


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(("line", "reply"), [("zoo dow", "download"), ("zoo train trainer=cp", "trainer=cpu")])
def test_in_fish(tmp_path, line, reply):
    command_in(tmp_path)
    (tmp_path / "zoo.fish").write_text(SCRIPTS["fish"])
    script = f"set PATH {tmp_path} $PATH; source {tmp_path}/zoo.fish; complete -C '{line}'"
    finished = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True)
    assert reply in finished.stdout.split()


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize(
    ("words", "reply"),
    [("zoo dow", "download"), ("zoo train trainer=cp", "trainer=cpu"), ("zoo train trainer=cpu trai", "-S  trainer=")],
)
def test_in_zsh(tmp_path, words, reply):
    command_in(tmp_path)
    (tmp_path / "zoo.zsh").write_text(SCRIPTS["zsh"])
    script = f"""
        PATH={tmp_path}:$PATH
        compdef() {{ :; }}
        compadd() {{ print -r -- "${{(@)argv:#--}}"; }}
        source {tmp_path}/zoo.zsh
        words=({words}) CURRENT={len(words.split())}
        _zoo
    """
    finished = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout == f"{reply}\n"


def command_in(folder: Path) -> None:
    """A `zoo` that runs this Python."""
    (folder / "zoo").write_text(f'#!/bin/sh\nexec {sys.executable} -m zoo "$@"\n')
    (folder / "zoo").chmod(0o755)
