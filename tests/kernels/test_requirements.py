"""Which machines run the kernels, and what is said of those that do not."""

import pytest

from zoo.kernels import requirements
from zoo.kernels.requirements import nothing_to_build_with, wrong_versions


@pytest.mark.parametrize("triton", ["3.6.0", "3.8.0+git1a2b", "3.9.0", "4.0.0"])
def test_versions_that_run(triton):
    assert wrong_versions(triton, "2.4.6", interpreted=False) is None
    assert wrong_versions(triton, "2.2.0", interpreted=True) is None


@pytest.mark.parametrize(
    ("triton", "numpy", "says"),
    [
        (None, "2.4.6", "triton is not installed"),
        ("3.5.1", "2.4.6", "triton 3.5.1 is too old: 3.6 or newer is needed"),
        ("3.6.0", "2.4.6", "numpy < 2.4 or triton 3.7 is needed"),
    ],
)
def test_others_are_named_in_one_line(triton, numpy, says):
    problem = wrong_versions(triton, numpy, interpreted=True)
    assert problem is not None
    assert says in problem
    assert "\n" not in problem


def test_a_machine_on_which_triton_cannot_build(monkeypatch, tmp_path):
    """Slim images have a GPU's driver, but no compiler, or no headers of Python."""
    monkeypatch.setattr(requirements.shutil, "which", {"clang": "/usr/bin/clang"}.get)
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(requirements.sysconfig, "get_path", lambda *_: str(tmp_path))
    assert nothing_to_build_with() is None
    (tmp_path / "Python.h").unlink()
    assert "Python.h" in nothing_to_build_with()
    monkeypatch.setattr(requirements.shutil, "which", lambda name: None)
    assert "no C compiler" in nothing_to_build_with()
