"""Files of weights that others wrote, read without executing pickle."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def read_weights(path: str) -> dict[str, Tensor]:
    """The state_dict in a .safetensors or weights-only torch file, without what training scripts wrap it in."""
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        state: dict[str, Any] = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("state_dict", "model"):
        state = state.get(wrapper, state)
    return {key.removeprefix("module."): value for key, value in state.items()}


def misfits(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """The keys of `wanted` that `found` lacks or has in another shape."""
    return [key for key, value in wanted.items() if key not in found or found[key].shape != value.shape]
