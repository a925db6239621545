"""A trained model as a file: model.safetensors with everything needed to rebuild it, and model.json beside it to read.

The description is stored in the safetensors header too, so the one file is enough. Nothing is ever unpickled.
"""

import json
import os
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import __version__, catalogue
from zoo.errors import UserError, suggest
from zoo.files import file_hash, replacing, write_json
from zoo.runs import find_run

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.contract import Facts, Preprocessing
    from zoo.models.contract import ZooModel

FORMAT = 1


@dataclass
class ModelInfo:
    """What a saved model says of itself.

    name: in the catalogue.
    recipe: target, arguments and backbone of the constructor calls.
    preprocessing: what an image goes through first.
    data: name of the configuration it was trained on.
    """

    name: str
    recipe: dict[str, Any]
    task: str
    class_names: list[str]
    concept_names: list[str]
    concept_groups: list[Any]
    preprocessing: dict[str, Any]
    data: str = ""
    zoo_version: str = __version__
    format: int = FORMAT
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def transform(self) -> "Preprocessing":
        from zoo.data.contract import Preprocessing

        return Preprocessing.from_dict(self.preprocessing)


def describe(model: "ZooModel", name: str, facts: "Facts", preprocessing: "Preprocessing", data: str) -> ModelInfo:
    """The `ModelInfo` of a model that `zoo.build` made."""
    recipe = dict(model.recipe)
    recipe["arguments"] = recipe["arguments"] | model.fitted_arguments()
    return ModelInfo(
        name=name,
        recipe=recipe,
        task=facts.task,
        class_names=list(facts.class_names),
        concept_names=list(model.concept_names),
        concept_groups=[[group, list(indices)] for group, indices in facts.concept_groups],
        preprocessing=preprocessing.to_dict(),
        data=data,
        extra=model.remarks(),
    )


def save_model(model: "ZooModel", info: ModelInfo, folder: Path) -> Path:
    """Write model.safetensors and model.json into `folder`; returns the former's path."""
    from safetensors.torch import save_file

    state = {
        key: value.detach().cpu().contiguous().clone()
        for key, value in model.state_dict().items()
        if not key.startswith(type(model).training_only)
    }
    description = json.loads(json.dumps(asdict(info)))
    path = folder / "model.safetensors"
    with replacing(path) as beside:
        save_file(state, beside, metadata={"zoo": json.dumps(description)})
    write_json(folder / "model.json", description | {"sha256": file_hash(path)})
    return path


def read_info(path: Path) -> ModelInfo:
    """The description in a safetensors file's header.

    Raises:
        UserError: it is truncated, no safetensors file, or was not written by the zoo.
    """
    values = _description(path)
    if values.get("format", 0) > FORMAT:
        raise UserError(
            f"{path}: written by zoo {values.get('zoo_version')}, newer than this one ({__version__}): upgrade"
        )
    known = {each.name: each.default is MISSING and each.default_factory is MISSING for each in fields(ModelInfo)}
    wrong = [f"lacks {name}" for name, needed in known.items() if needed and name not in values]
    wrong += [f"holds {name}, which is unknown" for name in values if name not in known]
    if not wrong and not {"target", "arguments"} <= values["recipe"].keys():
        wrong = ["lacks recipe.target or recipe.arguments"]
    if wrong:
        version = values.get("zoo_version", "an unknown version")
        raise UserError(f"{path}: its description {' and '.join(wrong)} (zoo {version} wrote it): train it again")
    return ModelInfo(**values)


def _description(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: cannot be read: change its permissions")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a safetensors file, or a truncated one ({error}): fetch or train it again"
        ) from None
    if "zoo" not in metadata:
        raise UserError(
            f"{path}: holds no description of a zoo model: bring it in with python -m zoo convert MODEL {path}"
        )
    try:
        values = json.loads(metadata["zoo"])
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path}: its description is damaged: fetch or train it again")
    return values


def find_weights(source: str) -> Path:
    """model.safetensors of a run (a folder, a file, `latest`) or of a catalogue entry (`name`, `name:tag`)."""
    from zoo.checkpoints import fetch_checkpoint

    return _own_weights(source) or fetch_checkpoint(*_released(source))


def read_source(source: str) -> ModelInfo | None:
    """What `load` would open, by its description alone; None for released weights, which are yet to be fetched.

    Raises:
        UserError: there is no such model, or the file is damaged.
    """
    path = _own_weights(source)
    if path is not None:
        return read_info(path)
    name, tag = _released(source)
    catalogue.entry(name).checkpoint(tag)
    return None


def _own_weights(source: str) -> Path | None:
    """model.safetensors of a run or a file; None where the name is neither's."""
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        return path
    if source and (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    if source in ("", "latest") or path.exists():
        run = find_run(source)
        if not run.weights.is_file():
            raise UserError(
                f"{source}: the run has no model.safetensors yet: finish it with python -m zoo train resume={run}"
            )
        return run.weights
    return None


def _released(source: str) -> tuple[str, str | None]:
    """Name in the catalogue, and tag."""
    name, _, tag = source.partition(":")
    if name not in catalogue.names():
        advice = suggest(name, [*catalogue.names(), "latest"])
        if advice.startswith("choose"):
            advice = "give the folder that python -m zoo train prints, or latest for the newest run"
        raise UserError(f"{source!r} is neither a run nor a model of the catalogue: {advice}")
    return name, tag or None


def with_weights_found(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose `backbone.pretrained` is a whole path where it names a run (a folder, `latest`) or a file.

    Raises:
        UserError: there is no such run, or it is not finished.
    """
    node = config.get("backbone") or {}
    named = node.get("pretrained")
    if not isinstance(named, str):
        return config
    path = Path(named).expanduser()
    if named == "latest" or path.is_dir():
        path = find_weights(named)
    return config | {"backbone": node | {"pretrained": str(path.resolve())}} if path.is_file() else config


def load(source: str) -> "ZooModel":
    """A trained model with its weights, in evaluation mode.

    Args:
        source: a run's folder, `latest`, a model.safetensors, or a catalogue checkpoint `name` or `name:tag`.

    Returns:
        the model; `model.info` holds its classes, concepts and preprocessing.

    Raises:
        UserError: there is no such model, or the file is damaged or does not fit.
    """
    from zoo.build import rebuild

    path = find_weights(str(source))
    info = read_info(path)
    model = rebuild(info.recipe)
    load_weights(model, path)
    model.info = info
    return model.eval()


def load_weights(model: "ZooModel", path: Path) -> None:
    """Copy a file's tensors into a model; training-only parts may be absent, nothing else may differ."""
    from safetensors.torch import load_file

    state = load_file(path)
    own = model.state_dict()
    needed = {key for key in own if not key.startswith(type(model).training_only)}
    problems = [f"{path}: lacks {key}" for key in sorted(needed - state.keys())[:5]]
    problems += [
        f"{path}: {key} is not part of {type(model).__name__}" for key in sorted(state.keys() - own.keys())[:5]
    ]
    problems += [
        f"{path}: {key} has shape {tuple(state[key].shape)}, the model expects {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if state[key].shape != own[key].shape
    ]
    if problems:
        raise UserError(*problems)
    model.load_state_dict(state, strict=False)


def load_fitting(model: "ZooModel", source: str) -> list[str]:
    """Start a model from other weights: copy every tensor whose name and shape agree; returns the names of those that
    keep their initial values (a head for other classes).

    Raises:
        UserError: nothing agrees.
    """
    fitting = fitting_tensors(model, source)
    model.load_state_dict(fitting, strict=False)
    return sorted(model.state_dict().keys() - fitting.keys())


def fitting_tensors(model: "ZooModel", source: str) -> dict[str, "Tensor"]:
    """The tensors of other weights whose name and shape agree with the model's.

    Raises:
        UserError: there are no such weights, or none agrees.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = find_weights(source)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"init_from={source}: {path} is not a safetensors file, or a truncated one ({error})") from None
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    if not any(value.numel() > 1 for value in fitting.values()):
        raise UserError(
            f"init_from={source}: none of its {len(state)} tensors fits this model: give a run of the same model"
        )
    return fitting
