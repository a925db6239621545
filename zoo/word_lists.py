"""Texts by file: `model.concepts=words.txt` or `model.candidates=sentences.json` in place of the texts themselves.

.txt     a text a line: concept lists of label-free CBM and SparseCBM, vocabularies
.json    class name -> texts: LaBo's sentences, published descriptions of classes; or a list of texts
"""

import json
from pathlib import Path
from typing import Any

from zoo.annotations import mismatch
from zoo.signatures import parameters

KINDS: dict[str, type] = {"a list": list, "a mapping": dict}
"""What an argument that takes texts expects, in the words of `mismatch`."""


def read_word_lists(config: dict[str, Any]) -> list[str]:
    """Read the files that are named where the model takes texts, in place; a line for each that cannot be."""
    node, wrong = config.get("model"), []
    if not isinstance(node, dict) or "_target_" not in node:
        return []
    for key, parameter in (parameters(node["_target_"]) or {}).items():
        value = node.get(key)
        if not isinstance(value, str) or not value.endswith((".txt", ".json")):
            continue
        expected = mismatch(value, parameter.annotation) or ""
        kind = KINDS.get(expected.removesuffix(" or null"))
        if kind is None:
            continue
        try:
            node[key] = read_texts(Path(value).expanduser(), kind)
        except ValueError as error:
            wrong.append(f"model.{key}={value}: {error}")
            node[key] = kind()
    return wrong


def read_texts(path: Path, kind: type) -> Any:
    """A file's list of texts, without empty lines and repetitions, or its class name -> texts where `kind` is dict.

    Raises:
        ValueError: the file cannot be read or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    except FileNotFoundError:
        raise ValueError("there is no such file") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8 text: save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: line {error.lineno}: {error.msg}") from None
    if kind is list and _is_texts(found):
        return _unique(found)
    if kind is dict and isinstance(found, dict) and all(_is_texts(texts) for texts in found.values()):
        return {name: _unique(texts) for name, texts in found.items()}
    if kind is list:
        raise ValueError("holds no list of texts: give a .txt with a text a line, or a JSON list")
    raise ValueError('holds no texts of classes: give JSON of the form {"class": ["text", "text"]}')


def _is_texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(text, str) for text in found)


def _unique(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))
