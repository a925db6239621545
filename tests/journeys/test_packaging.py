"""The wheel holds everything, and an installed zoo works from any folder."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("zoo", "models", "data", "tasks", "kernels", "conf")

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source") / "checkout"
    run("git", "clone", "--quiet", ROOT, source, cwd=ROOT)
    target = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", target, source, cwd=target)
    return next(target.glob("bottleneck_zoo-*.whl"))


def test_the_wheel_holds_every_module_and_recipe(wheel):
    listed = run("git", "ls-tree", "-r", "--name-only", "HEAD", *FOLDERS, cwd=ROOT).split()
    expected = {f"zoo/{name}" if not name.startswith("zoo/") else name for name in listed}
    missing = {name for name in expected if name.endswith((".py", ".yaml", ".html", ".safetensors", ".typed"))}
    missing -= set(zipfile.ZipFile(wheel).namelist())
    assert not missing


def test_an_installed_wheel_runs_verbs_from_elsewhere(wheel, tmp_path):
    """A fresh environment that borrows the libraries of this one, so that only the zoo itself is installed."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    site = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    libraries = Path(next(path for path in sys.path if path.endswith("site-packages")))
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel, cwd=tmp_path)
    for entry in libraries.iterdir():
        # everything but the zoo of this environment
        if "bottleneck_zoo" not in entry.name and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    where = run(python, "-c", "import zoo.models.contract as c; print(c.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(site)
    assert "cbm" in run(python, "-m", "zoo", "list", cwd=tmp_path)
    small = ("backbone.widths=[8]", "trainer.max_epochs=1", "trainer.accelerator=cpu")
    assert "accuracy" in run(python, "-m", "zoo", "train", *small, cwd=tmp_path)


@pytest.mark.parametrize("folder", [ROOT, Path("/")], ids=["root", "elsewhere"])
def test_the_checkout_is_what_is_imported(folder):
    code = "import zoo.models.contract as c, zoo.kernels as k; print(c.__file__, k.__file__)"
    found = run(sys.executable, "-c", code, cwd=folder).split()
    assert all(Path(path).is_relative_to(ROOT) for path in found)
