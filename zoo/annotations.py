"""Values of a configuration against the annotations of constructors, which are read as text."""

import ast


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
