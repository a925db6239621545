"""Every model file of the catalogue is complete: a card, a class that exists, weights that can be checked, a test."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from zoo import catalogue
from zoo.build import build_datamodule
from zoo.config import compose_config
from zoo.preflight import preflight
from zoo.signatures import find_source, parameters

ROOT = Path(__file__).resolve().parent.parent.parent
ENTRIES = catalogue.models()
FILLED = {"backbone", "num_outputs", "concept_names", "concept_groups", "in_channels", "image_size", "task"}
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


@each_entry
def test_card_is_complete(entry):
    lacking = [key for key in ("title", "paper", "url", "license", "summary") if not getattr(entry, key)]
    assert not lacking, f"{entry.path.name} lacks {lacking}"
    assert entry.family in catalogue.FAMILIES
    assert 1980 <= entry.year <= 2100
    assert urlsplit(entry.url).scheme == "https"
    assert all({"data", "metric", "value"} <= figure.keys() for figure in entry.figures)


@each_entry
def test_command_names_the_model(entry):
    assert f"model={entry.name}" in entry.command


@each_entry
def test_target_lies_in_the_family_s_folder(entry):
    module, _, _ = entry.target.rpartition(".")
    assert re.fullmatch(rf"zoo\.models\.{entry.family}\.\w+", module), entry.target
    assert find_source(module), f"{entry.target}: there is no such file"


@each_entry
def test_arguments_are_the_constructor_s(entry):
    known = parameters(entry.target)
    assert known is not None, f"{entry.target}: there is no such class, or its arguments cannot be told"
    assert entry.arguments.keys() <= known.keys()
    assert not entry.arguments.keys() & FILLED, "these are filled from the data"
    needed = {name for name, parameter in known.items() if parameter.required}
    assert needed <= entry.arguments.keys() | FILLED | {"class_names"}


@each_entry
def test_published_training_is_a_command_that_passes_its_check(entry):
    words = entry.published_command.split()[4:]
    if words:
        config = compose_config([*words, "data=shapes"])
        preflight(config, build_datamodule(config))
        assert any(word.startswith("task.optimizer=") for word in words)
        assert any(word.startswith("trainer.max_epochs=") for word in words)


@each_entry
def test_checkpoints_can_be_checked(entry):
    for checkpoint in entry.checkpoints.values():
        assert re.fullmatch(r"[0-9a-f]{64}", checkpoint.sha256), checkpoint
        assert urlsplit(checkpoint.url).scheme in ("https", "hf", "package"), checkpoint
        assert checkpoint.arguments.keys() <= parameters(entry.target).keys() | FILLED


@each_entry
def test_there_is_a_test(entry):
    file = entry.target.split(".")[-2]
    folder = ROOT / "tests" / "models" / entry.family
    assert (folder / f"test_{entry.name}.py").is_file() or (folder / f"test_{file}.py").is_file()


@pytest.mark.slow
@each_entry
def test_target_is_a_model(entry):
    from zoo.build import locate
    from zoo.models.contract import ZooModel

    target = locate(entry.target)
    assert isinstance(target, type)
    assert issubclass(target, ZooModel)
