"""Every configuration that the launchers of all operations can choose, and the table of what each one needs.

    catalogue("sm_90")                       name -> Configuration
    python benchmarks/kernels_aot.py         compiles what changed and writes benchmarks/kernels_aot.csv

An operation joins by a function `configurations` in its `triton.py` (or `configurations.py`) that reads the launcher's
own tables. It may ask for the `target`, or just whether that is an `amd` one.
"""

import ast
import csv
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from zoo.kernels.aot import Configuration, Resources

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

COLUMNS = (
    "target", "configuration", "main", "registers", "spilled", "shared", "warps", "stages", "matrix", "copies",
    "source", "triton",
)  # fmt: skip


def operations() -> list[str]:
    """Names of the operations that have kernels of their own."""
    import zoo.kernels

    return [found.name for found in pkgutil.iter_modules(zoo.kernels.__path__) if found.ispkg and _module(found.name)]


def _module(operation: str) -> Any:
    for name in ("configurations", "triton"):
        path = f"zoo.kernels.{operation}.{name}"
        if importlib.util.find_spec(path) and hasattr(module := importlib.import_module(path), "configurations"):
            return module
    return None


def catalogue(target: str, *names: str) -> dict[str, Configuration]:
    """Name ("operation: configuration") to configuration, of all `operations()` or the named ones.

    Raises:
        ValueError: two configurations of one name, which would hide one another in the table.
    """
    offered = {"target": target, "amd": target.startswith("gfx")}
    found: dict[str, Configuration] = {}
    for operation in names or operations():
        function = _module(operation).configurations
        wanted = inspect.signature(function).parameters
        for configuration in function(**{key: value for key, value in offered.items() if key in wanted}):
            name = f"{operation}: {configuration.name}"
            if name in found:
                raise ValueError(f"{target}: two configurations are called {name!r}")
            found[name] = configuration
    return found


def fingerprint(configuration: Configuration) -> str:
    """Changes with the kernel's code (not its comments), its tiles and its argument types."""
    given = [sorted(map(str, part.items())) for part in (configuration.constants, configuration.options)]
    types = [(name, configuration.signature.get(name)) for name in configuration.kernel.arg_names]
    text = f"{given} {types} {sorted(configuration.aligned)} {_code(configuration.kernel)}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _code(kernel: Any) -> str:
    """The code of a kernel and of every kernel function that it calls, without comments."""
    tree = ast.parse(textwrap.dedent(kernel.src))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    called = [kernel.fn.__globals__.get(node.id) for node in ast.walk(tree) if isinstance(node, ast.Name)]
    inner = {value.fn.__name__: value for value in called if hasattr(value, "arg_names") and value is not kernel}
    return ast.unparse(tree) + "".join(_code(value) for _, value in sorted(inner.items()))


def row(target: str, name: str, configuration: Configuration, resources: Resources, triton: str) -> dict[str, str]:
    """One line of the table, every cell a string."""
    cells = {
        "target": target,
        "configuration": name,
        "main": int(configuration.main),
        "registers": resources.registers,
        "spilled": resources.spilled,
        "shared": resources.shared,
        "warps": resources.warps,
        "stages": configuration.options.get("num_stages", ""),
        "matrix": "+".join(resources.matrix),
        "copies": resources.copies,
        "source": fingerprint(configuration),
        "triton": triton,
    }
    return {column: str(cells[column]) for column in COLUMNS}


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """The lines of a table; none where it does not exist."""
    if path.is_file():
        with path.open(newline="") as file:
            yield from csv.DictReader(file)
