"""What the README and CONTRIBUTING print works as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
JOURNEYS = re.findall(r"<!-- journey: (\w+) -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of pictures, one folder a class, as the README's first journey asks for."""
    import numpy as np
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(0)
    for name in ("square", "circle"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(24):
            picture = Image.new("RGB", (64, 64), tuple(rng.integers(0, 90, 3).tolist()))
            draw = ImageDraw.Draw(picture)
            x, y, side = (int(v) for v in rng.integers((4, 4, 20), (20, 20, 40)))
            shape = draw.rectangle if name == "square" else draw.ellipse
            shape((x, y, x + side, y + side), fill=tuple(rng.integers(150, 255, 3).tolist()))
            picture.save(folder / f"{index}.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "commands"), JOURNEYS, ids=[name for name, _ in JOURNEYS])
def test_journey(name, commands, photos):
    folder = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    script = commands.replace("python -m zoo", f"{sys.executable} -m zoo")
    done = subprocess.run(
        ["bash", "-euxc", script], cwd=photos, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f"{name}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    if name == "split":
        assert "A message takes" in (photos / "outputs" / "latest" / "report.html").read_text()
    if name == "explain":
        assert (photos / "why.png").stat().st_size > 5000


def test_there_are_five_journeys_and_two_commands():
    assert len(JOURNEYS) == 5
    assert (ROOT / "README.md").read_text().count("-m venv") == 2


@pytest.mark.slow
def test_the_worked_example_of_contributing_is_three_files_and_trains(tmp_path):
    """In a copy of the checkout: the example's three files are all that a new model needs."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("zoo", "models", "data", "tasks", "kernels", "conf", "tests", "pyproject.toml"):
        (copy / name).symlink_to(ROOT / name) if name in ("data", "tasks", "kernels") else _copy(
            ROOT / name, copy / name
        )
    text = (ROOT / "CONTRIBUTING.md").read_text()
    files = re.findall(r"^`([\w/]+\.(?:py|yaml))`\n```\w+\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert len(files) == 3
    for name, content in files:
        (copy / name).write_text(content)
    for command in (
        ["zoo", "list", "top_features"],
        ["zoo", "train", "model=top_features", "backbone.widths=[8,16]", "trainer.max_epochs=1"],
        ["pytest", "-q", files[2][0], "-p", "no:cacheprovider"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=copy, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _copy(source: Path, target: Path) -> None:
    import shutil

    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
