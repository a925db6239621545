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


def mismatch(value: object, annotation: str) -> str | None:
    """What was expected, where a configuration value cannot be an `annotation`; None where it fits or cannot be told.

    >>> mismatch("abc", "float"), mismatch(1, "float | None"), mismatch("x", "Literal['a', 'b']")
    ('a number', None, "one of 'a', 'b'")
    >>> mismatch([1, "x"], "Sequence[int]")
    'a list, each a whole number'
    """
    if not annotation:
        return None
    options = _options(ast.parse(annotation.strip("'\""), mode="eval").body)
    if any(check is None or check(value) for _, check in options):
        return None
    return " or ".join(dict.fromkeys(words for words, _ in options))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_SIMPLE = {
    "int": ("a whole number", lambda v: isinstance(v, int) and not isinstance(v, bool)),
    "float": ("a number", _is_number),
    "bool": ("true or false", lambda v: isinstance(v, bool)),
    "str": ("text", lambda v: isinstance(v, str)),
    "None": ("null", lambda v: v is None),
    "Path": ("a path", lambda v: isinstance(v, str)),
}


def _options(node: ast.expr) -> list[tuple]:
    """The alternatives of an annotation as (words, predicate); a predicate of None accepts everything."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _options(node.left) + _options(node.right)
    if isinstance(node, ast.Constant) and node.value is None:
        return [_SIMPLE["None"]]
    if isinstance(node, ast.Name) and node.id in _SIMPLE:
        return [_SIMPLE[node.id]]
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value).rpartition(".")[2]
        if name == "Literal":
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            values = [ast.literal_eval(item) for item in items]
            return [("one of " + ", ".join(map(repr, values)), lambda v: v in values)]
        if name == "Optional":
            return [*_options(node.slice), _SIMPLE["None"]]
        if name == "Union" and isinstance(node.slice, ast.Tuple):
            return [option for item in node.slice.elts for option in _options(item)]
        if name in ("tuple", "list", "Sequence", "Iterable", "set"):
            return [_list_of(node.slice)]
        if name in ("dict", "Mapping"):
            return [("a mapping", lambda v: isinstance(v, dict))]
    return [("", None)]


def _list_of(items: ast.expr) -> tuple:
    """A list, or where its items are numbers, a list of those; what is to be text may be written as a number."""
    if isinstance(items, ast.Tuple):
        repeated = len(items.elts) == 2 and ast.unparse(items.elts[1]) == "..."
        items = items.elts[0] if repeated else ast.Constant(...)
    options = _options(items)
    if any(check is None or check("") for _, check in options):
        return "a list", lambda v: isinstance(v, list | tuple)
    words = "a list, each " + " or ".join(dict.fromkeys(words for words, _ in options))
    return words, lambda v: isinstance(v, list | tuple) and all(any(check(item) for _, check in options) for item in v)
