"""Constructor signatures read from source files, so that an override can be checked without importing torch."""

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Parameter:
    """One constructor argument: its annotation and its default as source text, "" where there is none, and whether it
    has to be given."""

    annotation: str
    required: bool
    default: str = ""


def find_source(module: str) -> Path | None:
    """The file of a dotted module name; of its packages only the first is imported, and only if it is `zoo`."""
    head, *rest = module.split(".")
    if head == "zoo":
        import zoo

        roots = [Path(path) for path in zoo.__path__]
        if rest and (spec := importlib.util.find_spec(f"zoo.{rest[0]}")) is not None:
            if spec.submodule_search_locations is None:
                return Path(spec.origin) if spec.origin and len(rest) == 1 else None
            roots, rest = [Path(path) for path in spec.submodule_search_locations], rest[1:]
    else:
        spec = importlib.util.find_spec(head)
        if spec is None or spec.submodule_search_locations is None:
            return None
        roots = [Path(path) for path in spec.submodule_search_locations]
    for root in roots:
        base = root.joinpath(*rest)
        for candidate in (base.with_suffix(".py") if rest else base / "__init__.py", base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _definition(target: str) -> tuple[str, ast.ClassDef | ast.FunctionDef] | None:
    """The module and definition that a dotted target names, followed through `from x import y`."""
    module, _, name = target.rpartition(".")
    source = find_source(module)
    if source is None:
        return None
    for node in _tree(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(f"{node.module}.{alias.name}")
    return None


@cache
def parameters(target: str) -> dict[str, Parameter] | None:
    """Constructor (or function) parameters of a dotted target by name; None where they cannot be told (`**kwargs`
    without a base class to follow, or no source). Inherited constructors are followed through the first base.

    >>> parameters("zoo.errors.MissingDependency")["package"].annotation
    'str'
    """
    found = _definition(target)
    if found is None:
        return None
    module, node = found
    function = node
    if isinstance(node, ast.ClassDef):
        constructors = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        if not constructors:
            return _inherited(module, node)
        function = constructors[0]
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    positional = [
        argument for argument in arguments.posonlyargs + arguments.args if argument.arg not in ("self", "cls")
    ]
    defaults = len(arguments.defaults)
    result = {
        argument.arg: Parameter(_text(argument.annotation), position < len(positional) - defaults)
        for position, argument in enumerate(positional)
    }
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        result[argument.arg] = Parameter(_text(argument.annotation), default is None, _text(default))
    if arguments.kwarg is None:
        return result
    inherited = _inherited(module, node) if isinstance(node, ast.ClassDef) else None
    return None if inherited is None else inherited | result


def _inherited(module: str, node: ast.ClassDef) -> dict[str, Parameter] | None:
    for base in node.bases:
        if isinstance(base, ast.Name) and (found := parameters(f"{module}.{base.id}")) is not None:
            return found
    return None


def _text(expression: ast.expr | None) -> str:
    return "" if expression is None else ast.unparse(expression)
