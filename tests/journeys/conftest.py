"""A working folder, a finished run, and a command that has to be refused, for journeys that go wrong."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.cli import main

TINY = ("backbone.widths=[4]", "trainer.max_epochs=1", "trainer.accelerator=cpu", "data.batch_size=256")
FOLDER = ("data=folder", "data.root=photos", "data.num_workers=0", "data.image_size=16", *TINY)
VIB = ("model=vib", "model.latent_dim=4")


def contents(folder: Path) -> dict[str, str]:
    """Every file below `folder` with a hash of what it holds, links with their targets."""
    found = {}
    for base, folders, files in os.walk(folder):
        for path in (Path(base, name) for name in folders + files):
            if path.is_symlink():
                found[str(path)] = f"-> {os.readlink(path)}"
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder with a folder of photos, a digit, a text that calls itself a picture, and a file."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            picture = Image.fromarray(noise.integers(0, 255, (16, 16, 3), dtype=np.uint8))
            picture.save(tmp_path / "photos" / name / f"{index}.png")
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "file").write_text("a file")
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A finished run of a concept model on the digits. Tests read it, or copy it before they damage it."""
    folder = tmp_path_factory.mktemp("trained")
    assert main(["train", *TINY, f"output_dir={folder / 'outputs'}", "--json"]) == 0
    return (folder / "outputs" / "latest").resolve()


@pytest.fixture
def damaged(trained, here) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(trained, here / "run"))


@pytest.fixture
def refuse(here, capfd):
    """Run a command and hold what it says and leaves against what it should."""

    def check(words, code: int, *lines: str, new_files: bool = False) -> str:
        """`lines`: a part of each line on stderr, in order. `new_files`: a run that fails may leave its folder."""
        before = contents(here)
        capfd.readouterr()
        assert main([str(word) for word in words]) == code
        shown = capfd.readouterr()
        errors = shown.err.splitlines()
        assert len(errors) == len(lines), shown.err
        for part, error in zip(lines, errors, strict=True):
            assert part in error
            assert error.startswith(("error: ", "zoo "))
        after = contents(here)
        kept = {path: after.get(path) for path in before} if new_files else after
        links = [path for path in before if Path(path).name == "latest"] if new_files else []
        assert {p: v for p, v in kept.items() if p not in links} == {p: v for p, v in before.items() if p not in links}
        return shown.err

    return check
