"""From the words of a command line to a checked configuration, without importing torch.

    words -> overrides -> Hydra composition -> types against the constructors' signatures -> plain dict

All mistakes are collected and raised together as one `UserError`, a line each.
"""

import itertools
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from zoo import catalogue
from zoo.annotations import mismatch
from zoo.errors import UserError, suggest
from zoo.signatures import parameters

SHORTHANDS = {"timm": "name", "clip": "name", "word_clip": "pretrained"}
"""`backbone=timm:resnet18` stands for `backbone=timm backbone.name=resnet18`."""

CHOSEN = {"model_name", "data_name", "backbone_name", "task_name"}
"""Which recipe of each group was chosen: kept in the configuration beside its values, not to be set by itself."""

NEEDED = {"model", "data", "task", "trainer"}
"""Groups without which there is no training."""


def sweep(overrides: list[str]) -> list[list[str]]:
    """The jobs of a multirun: `task.lr=1e-3,3e-3 seed=0,1` are four, in order.

    >>> sweep(["seed=0,1", "model=cbm"])
    [['seed=0', 'model=cbm'], ['seed=1', 'model=cbm']]
    """
    choices = []
    for word in overrides:
        override = _parse(_expand([word]))[0]
        if override.is_sweep_override():
            choices.append([f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([word])
    return [list(job) for job in itertools.product(*choices)]


def compose_config(overrides: list[str]) -> dict[str, Any]:
    """The resolved configuration as plain dicts and lists.

    Raises:
        UserError: with a line for each mistake: unknown groups, names and keys (with the nearest valid ones), values of
            the wrong type, values that must be given.
    """
    with _own_recipes(overrides) as (words, searchpath):
        parsed = _parse(_expand(words))
        for override in parsed:
            if override.is_sweep_override():
                raise UserError(
                    f"{override.input_line}: several values need a sweep: add -m to run them one after another"
                )
        known = catalogue.groups()
        choices = [override for override in parsed if _is_group(override, known)]
        values = [override for override in parsed if not _is_group(override, known)]
        wrong = [line for override in choices if (line := _wrong_choice(override, known, searchpath)) is not None]
        valid = [o.input_line for o in choices if o.input_line and _wrong_choice(o, known, searchpath) is None]
        config = _compose(valid + searchpath)
    wrong += _apply(values, config, known)
    plain = _resolve(config)
    wrong += _wrong_types(plain, skip=bool(wrong))
    if wrong:
        raise UserError(*dict.fromkeys(wrong))
    return plain


def apply_to(config: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """A stored configuration with some of its values replaced.

    Raises:
        UserError: a line for each key that it does not hold and each value of the wrong type.
    """
    node = OmegaConf.create(config)
    wrong = _apply(_parse(words), node, {})
    plain = _resolve(node)
    wrong += _wrong_types(plain, skip=bool(wrong))
    if wrong:
        raise UserError(*wrong)
    return plain


def to_yaml(config: dict[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(config))


def _parse(words: list[str]) -> list[Override]:
    parser = OverridesParser.create()
    result, wrong = [], []
    for word in words:
        try:
            result.append(parser.parse_override(word))
        except HydraException:
            hint = "write key=value" if "=" not in word else "quote values that hold commas, brackets or quotes"
            wrong.append(f"cannot read {word!r}: {hint}, for example task.lr=1e-3")
    if wrong:
        raise UserError(*wrong)
    return result


def _expand(words: list[str]) -> list[str]:
    """Write `backbone=timm:NAME` out."""
    result = []
    for word in words:
        match = re.fullmatch(r"backbone=([a-z_]+):(.+)", word)
        if match and match[1] in SHORTHANDS:
            result += [f"backbone={match[1]}", f"backbone.{SHORTHANDS[match[1]]}='{match[2]}'"]
        else:
            result.append(word)
    return result


@contextmanager
def _own_recipes(words: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Let `model=path/to/mine.yaml` name a file: a folder with it is added to Hydra's search path."""
    with tempfile.TemporaryDirectory() as folder:
        result, wrong = [], []
        for word in words:
            group, _, value = word.partition("=")
            if value.endswith((".yaml", ".yml")) and group in catalogue.groups():
                source = Path(value).expanduser()
                if not source.is_file():
                    wrong.append(f"{group}: there is no file {value}")
                    continue
                target = Path(folder) / group / f"{source.stem}.yaml"
                target.parent.mkdir(exist_ok=True)
                shutil.copy(source, target)
                word = f"{group}={source.stem}"
            result.append(word)
        if wrong:
            raise UserError(*wrong)
        yield result, [f"hydra.searchpath=[file://{folder}]"] if any(Path(folder).iterdir()) else []


def _is_group(override: Override, known: dict[str, list[str]]) -> bool:
    return override.key_or_group.lstrip("/") in known


def _wrong_choice(override: Override, known: dict[str, list[str]], searchpath: list[str]) -> str | None:
    group, name = override.key_or_group.lstrip("/"), override.value()
    own = Path(searchpath[0].partition("file://")[2].rstrip("]")) if searchpath else None
    valid = known[group] + ([file.stem for file in (own / group).glob("*.yaml")] if own else [])
    if group in NEEDED and (name is None or override.is_delete()):
        return f"{override.input_line}: a {group} is needed: {suggest('', valid)}"
    if name is None or name in valid:
        return None
    return f"unknown {group} {name!r}: {suggest(str(name), valid)}"


def _compose(overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("zoo.conf", version_base="1.3", job_name="zoo"):
            config = compose("config", overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"configuration: {' '.join(str(error).split())}") from None
    chosen = config.hydra.runtime.choices
    with open_dict(config):
        config.update({key: chosen[key.removesuffix("_name")] for key in CHOSEN})
        del config["hydra"]
    return config


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


def _wrong_key(override: Override, config: DictConfig, known: dict[str, list[str]]) -> str | None:
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


def _apply(overrides: list[Override], config: DictConfig, known: dict[str, list[str]]) -> list[str]:
    """Set (or with ~ delete) the values in `config`, also those that its YAML leaves out; the mistakes as lines."""
    wrong = []
    with open_dict(config):
        for override in overrides:
            line = _wrong_key(override, config, known)
            if line:
                wrong.append(line)
            elif override.is_delete():
                parent, _, key = override.key_or_group.rpartition(".")
                del (OmegaConf.select(config, parent) if parent else config)[key]
            else:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=False, force_add=True)
    return wrong


def _resolve(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {' '.join(str(error).split())}") from None
    assert isinstance(plain, dict)
    plain.pop("experiment", None)
    if isinstance(plain.get("model"), dict):
        plain["model"].pop("card", None)
    return {str(key): value for key, value in plain.items()}


def _wrong_types(config: dict[str, Any], *, skip: bool) -> list[str]:
    """Values against annotations, at every node that names a constructor, and `???` values that nobody gave."""
    wrong = []
    top = {"seed": "int", "output_dir": "str", "cache": "Literal['auto', 'off']", "init_from": "str | None"}
    for key, annotation in top.items():
        if expected := mismatch(config.get(key), annotation):
            wrong.append(f"{key}={_shown(config.get(key))}: expected {expected}")
    seed = config.get("seed")
    if isinstance(seed, int) and not 0 <= seed < 2**32:
        wrong.append(f"seed={seed}: give a whole number from 0 to {2**32 - 1}")
    if config.get("output_dir") == "":
        wrong.append("output_dir=: give a folder, or . for this one")
    for group, node in config.items():
        if not isinstance(node, dict):
            continue
        signature = parameters(node["_target_"]) if node.get("_target_") else None
        for key, value in node.items():
            if key in ("_target_", "card") or (key in top and value == config.get(key)):
                continue
            if value == "???":
                if not skip:
                    wrong.append(f"{group}.{key} must be given: add {group}.{key}=VALUE")
            elif signature and key in signature and (expected := mismatch(value, signature[key].annotation)):
                wrong.append(f"{group}.{key}={_shown(value)}: expected {expected}")
    return wrong


def _shown(value: Any) -> str:
    """A value as the user writes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
