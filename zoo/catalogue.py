"""The catalogue: what conf/model/*.yaml say about the models. Reads YAML only, so it is fast and loads no torch."""

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import zoo.conf
from zoo.errors import UserError, suggest

FAMILIES = ("concept", "information", "split", "vision")
NOT_ARGUMENTS = ("_target_", "card", "defaults")
TEXTS = ("title", "family", "paper", "url", "license", "reference", "training")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Checkpoint:
    """Released weights: `url` as `zoo.checkpoints.fetch` takes it, and the constructor arguments they need."""

    tag: str
    url: str
    sha256: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue: its YAML, read but not resolved.

    summary: the first sentence of the file's heading comment. target: dotted name of the class.
    arguments: hyper-parameters with their defaults. training: its authors' settings as words of a command line, ""
    where they hold for their data alone. figures: published results, dicts with data, metric, value, note.
    """

    name: str
    path: Path
    summary: str
    target: str
    arguments: dict[str, Any]
    title: str
    family: str
    paper: str
    url: str
    year: int
    license: str
    reference: str
    training: str
    figures: tuple[dict[str, Any], ...]
    checkpoints: dict[str, Checkpoint]

    @property
    def command(self) -> str:
        """The command that trains it."""
        found = re.search(r"python -m zoo train .*", self.path.read_text(encoding="utf-8"))
        return found.group().strip() if found else f"python -m zoo train model={self.name}"

    @property
    def published_command(self) -> str:
        """The command that trains it under its authors' settings, "" where the card has none."""
        return f"python -m zoo train model={self.name} {self.training}" if self.training else ""

    def checkpoint(self, tag: str | None = None) -> Checkpoint:
        """The released weights called `tag`, or the only (first) ones.

        Raises:
            UserError: there are none, or none of this name.
        """
        if not self.checkpoints:
            raise UserError(f"{self.name} has no released weights: train them with {self.command}")
        if tag is None:
            return next(iter(self.checkpoints.values()))
        if tag not in self.checkpoints:
            raise UserError(f"{self.name} has no weights tagged {tag!r}: {suggest(tag, self.checkpoints)}")
        return self.checkpoints[tag]


def conf_folder() -> Path:
    """The folder of the Hydra groups, in a checkout as in an installed wheel."""
    return Path(str(zoo.conf.__file__)).parent


def groups() -> dict[str, list[str]]:
    """The configuration groups and the names in each, e.g. those that `data=` takes; opens no file."""
    folders = [path for path in sorted(conf_folder().iterdir()) if path.is_dir()]
    found = {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}
    return {group: values for group, values in found.items() if values}


def names() -> list[str]:
    """The names of all models; opens no file."""
    return groups().get("model", [])


def entry(name: str) -> Entry:
    """The catalogue's entry of a model.

    Raises:
        UserError: no such model, or a file that is no catalogue entry.
    """
    path = conf_folder() / "model" / f"{name}.yaml"
    if name not in names():
        raise UserError(f"unknown model {name!r}: {suggest(name, names())} (python -m zoo list shows them)")
    return read(path)


def models() -> list[Entry]:
    """All entries, by family and name."""
    found = (entry(name) for name in names())
    return sorted(found, key=lambda e: (FAMILIES.index(e.family) if e.family in FAMILIES else 9, e.name))


def list_models(glob: str = "*", *, family: str | None = None) -> list[str]:
    """Names of the models that match a wildcard and belong to a family.

    Raises:
        UserError: there is no such family.
    """
    if family is not None and family not in FAMILIES:
        raise UserError(f"unknown family {family!r}: {suggest(family, FAMILIES)}")
    return [e.name for e in models() if fnmatchcase(e.name, glob) and family in (None, e.family)]


@cache
def read(path: Path) -> Entry:
    """One model file as an entry; what its card leaves out is empty.

    Raises:
        UserError: the file cannot be read as a catalogue entry.
    """
    text = path.read_text(encoding="utf-8")
    try:
        document = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or not isinstance(document.get("card", {}), dict):
        raise UserError(f"{path}: expected a mapping with _target_ and card")
    card = document.get("card", {})
    return Entry(
        name=path.stem,
        path=path,
        summary=_summary(text),
        target=str(document.get("_target_", "")),
        arguments={key: value for key, value in document.items() if key not in NOT_ARGUMENTS},
        figures=tuple(card.get("figures") or ()),
        checkpoints={
            str(tag): Checkpoint(str(tag), found["url"], found["sha256"], found.get("arguments") or {})
            for tag, found in (card.get("checkpoints") or {}).items()
        },
        year=int(card.get("year") or 0),
        **{key: str(card.get(key) or "") for key in TEXTS},
    )


def _summary(text: str) -> str:
    """The heading comment up to the command that it shows."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return re.split(r"\s*(?:Run:|python -m zoo)", " ".join(lines))[0].strip()
