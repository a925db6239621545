"""Every example in a docstring or in the kernels' README prints what it says.

Modules are imported by their own names. Under a second one, which pytest's `--doctest-modules` gives to folders at the
top level, a kernel's operators would be registered again, and that frees the first registration while it is in use.
"""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("zoo", "models", "data", "tasks", "kernels")


def modules() -> list[str]:
    """Names of the modules that hold examples."""
    files = sorted(file.relative_to(ROOT) for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
    shown = [file.with_suffix("").parts for file in files if ">>> " in (ROOT / file).read_text(encoding="utf-8")]
    return [".".join(("zoo", *parts) if parts[0] != "zoo" else parts).removesuffix(".__init__") for parts in shown]


@pytest.mark.parametrize("name", modules())
def test_examples_of(name):
    found = doctest.testmod(import_module(name))
    assert found.attempted
    assert not found.failed


def test_examples_of_the_readme_of_kernels():
    found = doctest.testfile(str(ROOT / "kernels" / "README.md"), module_relative=False)
    assert found.attempted
    assert not found.failed
