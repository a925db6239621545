"""Every configuration of a data module names what its constructor takes, with the constructor's own defaults."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

import zoo.conf

FILES = sorted((Path(zoo.conf.__file__).parent / "data").glob("*.yaml"))


def arguments(target):
    module, name = target.rsplit(".", 1)
    found = {}
    for base in reversed(getattr(importlib.import_module(module), name).__mro__):
        if base.__module__.startswith("zoo.") and "__init__" in vars(base):
            found |= inspect.signature(base.__init__).parameters
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_configuration_matches_the_constructor(file):
    assert file.read_text().startswith("# ")
    assert "Run: python -m zoo train data=" in file.read_text().splitlines()[0]
    values = yaml.safe_load(file.read_text())
    known = arguments(values.pop("_target_"))
    assert values.keys() <= known.keys()
    keywords = {name: value for name, value in known.items() if value.kind is value.KEYWORD_ONLY}
    required = {name for name, value in keywords.items() if value.default is value.empty}
    assert required <= values.keys()
    assert values["seed"] == "${seed}"
