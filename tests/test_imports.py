"""Imports point one way: kernels <- models <- tasks <- zoo; data imports none of them; nothing imports zoo.cli."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "kernels": {"kernels"},
    "models": {"kernels", "models"},
    "tasks": {"kernels", "models", "tasks"},
    "data": {"data"},
    "zoo": {"kernels", "models", "tasks", "data", "conf", "zoo"},
}


def imported_modules(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_direction(folder):
    wrong = []
    for file in (ROOT / folder).rglob("*.py"):
        for name in imported_modules(file):
            parts = name.split(".")
            if parts[0] != "zoo":
                continue
            home = parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "zoo"
            if home not in MAY_IMPORT[folder]:
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
            if parts[1:2] == ["cli"] and file.name != "__main__.py":
                wrong.append(f"{file.relative_to(ROOT)} imports the command line")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_loaded_under_a_second_name():
    """It would register its operators again, and free the first registration while it is in use."""
    twice = [name for name in sys.modules if f"zoo.{name}" in sys.modules and name.split(".")[0] in MAY_IMPORT]
    assert not twice
