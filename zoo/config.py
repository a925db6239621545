"""From the words of a command line to a checked configuration, without importing torch.

    words -> overrides -> Hydra composition -> word lists -> types against the constructors' signatures -> plain dict

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
from zoo.config_checks import CHOSEN, wrong_choice, wrong_key, wrong_types
from zoo.errors import UserError
from zoo.word_lists import read_word_lists

SHORTHANDS = {"timm": "name", "clip": "name", "word_clip": "pretrained"}
"""`backbone=timm:resnet18` stands for `backbone=timm backbone.name=resnet18`."""


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
    with _own_recipes(overrides) as (words, folder):
        parsed = _parse(_expand(words))
        for override in parsed:
            if override.is_sweep_override():
                raise UserError(
                    f"{override.input_line}: several values need a sweep: add -m to run them one after another"
                )
        known = {
            group: names + [file.stem for file in (folder / group).glob("*.yaml")]
            for group, names in catalogue.groups().items()
        }
        values, choices, wrong = [], [], []
        for override in parsed:
            if override.key_or_group.lstrip("/") not in known:
                values.append(override)
            elif line := wrong_choice(override, known):
                wrong.append(line)
            else:
                choices.append(str(override.input_line))
        config = _compose(choices + ([f"hydra.searchpath=[file://{folder}]"] if any(folder.iterdir()) else []))
    wrong += _apply(values, config, known)
    plain = _resolve(config)
    wrong += read_word_lists(plain)
    wrong += wrong_types(plain, skip=bool(wrong))
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
    wrong += read_word_lists(plain)
    wrong += wrong_types(plain, skip=bool(wrong))
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
def _own_recipes(words: list[str]) -> Iterator[tuple[list[str], Path]]:
    """Let `model=path/to/mine.yaml` name a file: the words with its name, and a folder of groups that holds it."""
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
        yield result, Path(folder)


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


def _apply(overrides: list[Override], config: DictConfig, known: dict[str, list[str]]) -> list[str]:
    """Set (or with ~ delete) the values in `config`, also those that its YAML leaves out; the mistakes as lines."""
    wrong = []
    with open_dict(config):
        for override in overrides:
            line = wrong_key(override, config, known)
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
