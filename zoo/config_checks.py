"""What is wrong with the words of a command line: a line for each choice, key or value; without importing torch."""

from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from zoo.annotations import mismatch
from zoo.errors import suggest
from zoo.signatures import parameters

CHOSEN = {"model_name", "data_name", "backbone_name", "task_name"}
"""Which recipe of each group was chosen: kept in the configuration beside its values, not to be set by itself."""

NEEDED = {"model", "data", "task", "trainer"}
"""Groups without which there is no training."""

SETTINGS = {"seed": "int", "output_dir": "str", "cache": "Literal['auto', 'off']", "init_from": "str | None"}
"""Values that stand in no group, and their annotations."""


def wrong_choice(override: Override, known: dict[str, list[str]]) -> str | None:
    """Why `group=NAME` cannot be; `known` holds the names in each group."""
    group, name = override.key_or_group.lstrip("/"), override.value()
    if group in NEEDED and (name is None or override.is_delete()):
        return f"{override.input_line}: a {group} is needed: {suggest('', known[group])}"
    if name is None or name in known[group]:
        return None
    return f"unknown {group} {name!r}: {suggest(str(name), known[group])}"


def _valid_keys(node: Any) -> set[str] | None:
    """The keys a configuration node takes: what it holds, and what the constructor it names takes."""
    if not isinstance(node, DictConfig):
        return None
    keys = {str(key) for key in node} - {"_target_", "card"} - CHOSEN
    target = node.get("_target_")
    if target is None:
        return keys
    signature = parameters(target)
    return None if signature is None else keys | (signature.keys() - {"backbone"})


def wrong_key(override: Override, config: DictConfig, known: dict[str, list[str]]) -> str | None:
    """Why `some.key=value` has no place in the configuration."""
    if override.is_delete() and "." not in override.key_or_group and override.key_or_group in config:
        return f"{override.input_line}: {override.key_or_group} is needed, give it a value instead"
    *parents, last = override.key_or_group.split(".")
    if parents[:1] == ["hydra"]:
        return None
    node: Any = config
    for depth, name in enumerate([*parents, last]):
        if not isinstance(node, DictConfig):
            where = ".".join([*parents, last][:depth])
            return f"{override.key_or_group}: {where} is a value, it has no {name!r}"
        final = depth == len(parents)
        valid = _valid_keys(node)
        if (name in node and name not in CHOSEN) or (final and (valid is None or name in valid)):
            node = node.get(name)
            continue
        where = ".".join(parents[:depth])
        names = (valid or set()) | (set(known) if depth == 0 else set())
        return f"unknown key {override.key_or_group!r}{f' in {where}' if where else ''}: {suggest(name, names)}"
    return None


def wrong_types(config: dict[str, Any], *, skip: bool) -> list[str]:
    """Values against annotations, at every node that names a constructor, and `???` values that nobody gave."""
    wrong = _wrong_settings(config)
    for group, node in config.items():
        if not isinstance(node, dict):
            continue
        signature = parameters(node["_target_"]) if node.get("_target_") else None
        for key, value in node.items():
            said_already = key in SETTINGS and value == config.get(key)
            if key in ("_target_", "card") or said_already:
                continue
            if value == "???":
                if not skip:
                    wrong.append(f"{group}.{key} must be given: add {group}.{key}=VALUE")
            elif signature and key in signature and (expected := mismatch(value, signature[key].annotation)):
                wrong.append(f"{group}.{key}={_shown(value)}: expected {expected}")
    return wrong


def _wrong_settings(config: dict[str, Any]) -> list[str]:
    wrong = [
        f"{key}={_shown(config.get(key))}: expected {expected}"
        for key, annotation in SETTINGS.items()
        if (expected := mismatch(config.get(key), annotation))
    ]
    seed = config.get("seed")
    if isinstance(seed, int) and not 0 <= seed < 2**32:
        wrong.append(f"seed={seed}: give a whole number from 0 to {2**32 - 1}")
    if config.get("output_dir") == "":
        wrong.append("output_dir=: give a folder, or . for this one")
    return wrong


def _shown(value: Any) -> str:
    """A value as the user writes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
