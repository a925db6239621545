"""A trained model with the run it came from, and the data to use it on: what the verbs after training start with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.artifact import ModelInfo, load, read_source
from zoo.errors import UserError, suggest, together
from zoo.runs import Run, find_run

if TYPE_CHECKING:
    from zoo.data.contract import Facts
    from zoo.data.module import ZooDataModule
    from zoo.models.contract import ZooModel


@dataclass
class Described:
    """A trained model by its description. source: as the user named it. run: None for released weights."""

    source: str
    info: ModelInfo
    run: Run | None

    def __str__(self) -> str:
        return str(self.run) if self.run else self.source


@dataclass
class Trained(Described):
    """One with its weights, in evaluation mode."""

    model: "ZooModel"


def open_checked(
    source: str, fits: Callable[[Described], Any], *others: Callable[[], Any]
) -> tuple[Trained, Any, list[Any]]:
    """`open_trained` once everything that the user named was looked at; no weights are read before.

    Args:
        fits: what depends on the model's description; released weights are fetched before it is asked.
        others: what depends on nothing but the user's words.

    Returns:
        the model, and what `fits` and `others` returned.

    Raises:
        UserError: the lines of all mistakes.
    """
    found, *rest = together([partial(_described, source, fits), *others])
    trained = open_trained(source)
    return trained, fits(trained) if found is None else found[0], rest


def _described(source: str, fits: Callable[[Described], Any]) -> tuple[Any] | None:
    """What `fits` says; None where the description is yet to be fetched."""
    info = read_source(source)
    return None if info is None else (fits(Described(source, info, _run_of(source))),)


def open_trained(source: str) -> Trained:
    """The model of a run (a folder, a file in it, `latest`) or of a catalogue checkpoint (`name`, `name:tag`).

    Raises:
        UserError: there is no such model, or its file is damaged.
    """
    model = load(source)
    assert isinstance(model.info, ModelInfo)
    return Trained(source, model.info, _run_of(source), model)


def _run_of(source: str) -> Run | None:
    try:
        return find_run(source)
    except UserError:
        return None


def data_of(trained: Described, words: list[str] | None = None) -> "ZooDataModule":
    """The data that a model was trained on, or those that `data=NAME data.key=value` name, with the model's
    preprocessing.

    Raises:
        UserError: the data are gone, or their classes or concepts are not the model's.
        DataError: `data.image_size` is not the model's.
    """
    from zoo.build import build_datamodule

    words = words or []
    datamodule = build_datamodule(_configuration(trained, words))
    problems = misfits(trained.info, datamodule.facts, given=bool(words))
    if problems:
        raise UserError(*problems)
    datamodule.use_preprocessing(trained.info.transform)
    return datamodule


def training_data(trained: Trained, words: list[str]) -> "ZooDataModule | str | None":
    """The data that the model learned from: None where they are those that `words` name anyway, a reason where they are
    not at hand."""
    if trained.run is None:
        return "the rows that the model was trained on are not at hand"
    if not words:
        return None
    try:
        return data_of(trained)
    except (UserError, ValueError) as error:
        return f"the data of the training are not at hand ({str(error).splitlines()[0]})"


def learned_before(datamodule: "ZooDataModule", split: str, trained_on: "ZooDataModule | str | None") -> int:
    """How many items of a split the model learned from, as far as `training_data` tells: other settings may cut the
    same pictures into other splits."""
    import torch

    if trained_on is None or isinstance(trained_on, str):
        return 0
    trained_on.setup("fit")
    items, learned = getattr(datamodule, f"{split}_set"), trained_on.train_set
    places = {name: place for place, name in enumerate(learned.names)}
    common = [(place, places[name]) for place, name in enumerate(items.names) if name in places]
    pictures = ((items.source.read(items.indices[a]), learned.source.read(learned.indices[b])) for a, b in common[:3])
    return len(common) if all(torch.equal(one, other) for one, other in pictures) else 0


def check_data_words(words: list[str]) -> None:
    """Look at words that name data without knowing the model.

    Raises:
        UserError: they set something else, or name data that there are not.
    """
    from zoo.config import compose_config

    ours = [word for word in words if word not in _not_data(words)]
    named = any(word.startswith("data=") for word in ours)
    together([partial(_check_only_data, words), *([partial(compose_config, ours)] if named else [])])


def _not_data(words: list[str]) -> list[str]:
    return [word for word in words if word.split("=")[0].split(".")[0] not in ("data", "seed")]


def _check_only_data(words: list[str]) -> None:
    if others := _not_data(words):
        valid = ["data=NAME", "data.KEY=VALUE", "seed=NUMBER"]
        raise UserError(*(f"{word}: a trained model takes only {', '.join(valid)}" for word in others))


def _configuration(trained: Described, words: list[str]) -> dict[str, Any]:
    from zoo.config import apply_to, compose_config

    _check_only_data(words)
    if trained.run and not any(word.startswith("data=") for word in words):
        return apply_to(trained.run.config(), [*words, *(f"data.{word}" for word in words if word.startswith("seed="))])
    named = [] if any(word.startswith("data=") for word in words) else [f"data={trained.info.data}"]
    # the training's seed, so that data that are cut by it are cut the same way
    seed = [f"seed={trained.run.config()['seed']}"] if trained.run else []
    return compose_config([*named, *seed, *words])


def misfits(info: ModelInfo, facts: "Facts", *, given: bool = True) -> list[str]:
    """Why these data are not the model's, a line each; data without concepts are fine, only its answers are measured.

    given: the user named the data, so that their concepts must be the model's own (a model may have been trained
    with other concepts than its data name).
    """
    if facts.task != info.task:
        return [f"data: a task of {facts.task}, the model was trained for {info.task}"]
    lines = []
    if list(facts.class_names) != info.class_names:
        lines.append(f"data: {_difference('classes', facts.class_names, info.class_names)}")
    if given and facts.concept_names and info.concept_names and list(facts.concept_names) != info.concept_names:
        lines.append(f"data: {_difference('concepts', facts.concept_names, info.concept_names)}")
    if facts.image_size == (0, 0) and facts.in_channels != len(info.preprocessing["mean"]):
        expected = len(info.preprocessing["mean"])
        lines.append(f"data: rows of {facts.in_channels} numbers, the model takes {expected}")
    return lines


def _difference(what: str, given: tuple[str, ...], own: list[str]) -> str:
    """One line on two lists of names."""
    new, absent = [name for name in given if name not in own], [name for name in own if name not in given]
    if not new and not absent:
        return f"the {what} have another order than the model's ({', '.join(own[:6])}, ...)"
    parts = [f"{len(given)} {what}, the model knows {len(own)}"]
    parts += [f"unknown to it: {_some(new)}"] if new else []
    parts += [f"absent: {_some(absent)}"] if absent else []
    return "; ".join(parts)


def _some(names: list[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def concept_index(info: ModelInfo, name: str) -> int:
    """Position of a concept.

    Raises:
        UserError: unknown, with the nearest names.
    """
    return _index("concept", name, info.concept_names)


def class_index(info: ModelInfo, name: str) -> int:
    """Position of a class.

    Raises:
        UserError: unknown, with the nearest names.
    """
    return _index("class", name, info.class_names)


def _index(kind: str, name: str, known: list[str]) -> int:
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}: {suggest(name, known)}")
    return known.index(name)
