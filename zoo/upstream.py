"""Checkpoints of reference implementations: read without executing anything, and laid beside our model's parameters."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import UserError
from zoo.models.contract import ZooModel

NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net", "network", "module")
WRAPPERS = ("module.", "_orig_mod.")


@dataclass
class Match:
    """How an upstream checkpoint and our model meet.

    state: tensors under our keys, of the right shapes. unused: upstream tensors that have no place with us.
    missing: our tensors that nothing fills. mismatched: one line for each shape that differs.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or PyTorch checkpoint, nested ones unwrapped; no pickled object is ever executed.

    Raises:
        UserError: no such file, a damaged one, one with Python objects in it, or one without tensors.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    found: Any = _safetensors(path) if path.suffix == ".safetensors" else _pytorch(path)
    while isinstance(found, dict):
        inner = next((found[key] for key in NESTED_UNDER if isinstance(found.get(key), dict)), None)
        if inner is None:
            break
        found = inner
    state = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}
    if not state:
        raise UserError(f"{path}: holds no tensors by name: expected a state_dict")
    return _unwrapped(state)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file, or a truncated one ({error})") from None


def _pytorch(path: Path) -> Any:
    from pickle import UnpicklingError

    try:
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Unsupported global" in str(error):
            raise UserError(
                f"{path}: holds Python objects besides tensors, and loading them would execute code: "
                "save its state_dict as safetensors with its authors' code"
            ) from None
        raise UserError(f"{path}: not a PyTorch checkpoint, or a truncated one") from None
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: not a PyTorch checkpoint, or a truncated one ({reason})") from None


def _harmless() -> list[Any]:
    """What training scripts like to save beside the weights and what runs no code: options and numpy scalars."""
    import argparse

    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    scalars = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [argparse.Namespace, np.dtype, *scalars, *(type(np.dtype(kind)) for kind in "?ilfd")]


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that DataParallel or torch.compile puts before every key."""
    for prefix in WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def match(model: ZooModel, upstream: dict[str, Tensor]) -> Match:
    """Map the upstream keys by the model's `convert_state` and compare with its own tensors."""
    converted = type(model).convert_state(dict(upstream))
    own = model.state_dict()
    found = Match(unused=sorted(converted.keys() - own.keys()))
    for key, value in own.items():
        if key not in converted:
            if not key.startswith(type(model).training_only):
                found.missing.append(key)
        elif converted[key].shape != value.shape:
            theirs, ours = tuple(converted[key].shape), tuple(value.shape)
            found.mismatched.append(f"{key} has shape {theirs} upstream, the model as configured expects {ours}")
        else:
            found.state[key] = converted[key].to(value.dtype)
    return found
