"""Run folders: where a training puts its files, and how later verbs find them."""

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.files import replacing, write_text


@dataclass(frozen=True)
class Run:
    """One run's folder: outputs/<task>/<model>-<data>/<date_time>/."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    def __str__(self) -> str:
        try:
            return str(self.folder.relative_to(Path.cwd()))
        except ValueError:
            return str(self.folder)

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def result_file(self) -> Path:
        return self.folder / "result.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def card(self) -> Path:
        return self.folder / "MODEL_CARD.md"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def config(self) -> dict[str, Any]:
        """The resolved configuration the run was started with."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        try:
            plain = OmegaConf.to_container(OmegaConf.load(self.config_file))
        except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.config_file}: cannot be read ({' '.join(str(error).split())}): mend it") from None
        if not isinstance(plain, dict) or not {"model", "data", "task", "trainer"} <= plain.keys():
            raise UserError(f"{self.config_file}: is not the configuration of a run: mend it, or take another run")
        return {str(key): value for key, value in plain.items()}

    def overrides(self) -> list[str]:
        path = self.folder / "overrides.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []

    def result(self) -> dict[str, Any]:
        try:
            return json.loads(self.result_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}


def create_run(output_dir: str, task: str, name: str) -> Run:
    """Make a new folder outputs/<task>/<name>/<date_time> and point the `latest` links at it.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = stamped_folder(output_dir, Path(task) / name)
    parent = folder.parent
    for link in (parent / "latest", Path(output_dir) / "latest"):
        with replacing(link) as beside:
            beside.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)
    return Run(folder)


def stamped_folder(output_dir: str, below: Path) -> Path:
    """Make a new folder output_dir/<below>/<date_time>.

    Raises:
        UserError: it cannot be written.
    """
    parent = Path(output_dir) / below
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"_{n}" for n in range(2, 1000))):
            folder = parent / f"{stamp}{suffix}"
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
    except OSError as error:
        raise UserError(
            f"output_dir={output_dir}: {error.strerror or error}: give a folder that can be written"
        ) from None
    return folder


def find_run(name: str, output_dir: str = "outputs") -> Run:
    """A run by its folder, by a file in it, or `latest`.

    Raises:
        UserError: there is no such run.
    """
    if not name:
        raise UserError("'' is no run: give the folder of one, or latest for the newest")
    path = Path(output_dir) / "latest" if name == "latest" else Path(name).expanduser()
    if path.is_file():
        path = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    run = Run(path.resolve())
    if run.config_file.is_file():
        return run
    if name == "latest":
        raise UserError(f"there is no run below {output_dir} yet: start one with python -m zoo train")
    if (path / "latest").is_dir():
        raise UserError(f"{name} is no run, it holds runs: the newest of them is {Path(name) / 'latest'}")
    what = "it has no config.yaml" if path.is_dir() else "there is no such folder"
    raise UserError(
        f"{name} is no run: {what}; python -m zoo train prints the folder of a run, and `latest` is the newest"
    )


def record_configuration(run: Run, config: dict[str, Any], overrides: list[str]) -> None:
    """config.yaml, overrides.txt and env.json."""
    from zoo.config import to_yaml
    from zoo.environment import environment
    from zoo.files import write_json

    write_text(run.config_file, to_yaml(config))
    write_text(run.folder / "overrides.txt", "".join(f"{word}\n" for word in overrides))
    write_json(run.folder / "env.json", environment())
