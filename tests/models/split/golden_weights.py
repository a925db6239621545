"""Weights by rule: what the golden cases of bottlefit hold instead of large tensors (golden/README.md)."""

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor


def weights_by_rule(shapes: dict[str, torch.Size], *, seed: int, gain: float) -> dict[str, Tensor]:
    """The state_dict of the reference implementation's keys and shapes; integer entries are zero."""
    return {key: _entry(key, tuple(shape), seed, gain) for key, shape in shapes.items()}


def _entry(key: str, shape: tuple[int, ...], seed: int, gain: float) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    draw = np.random.RandomState(zlib.crc32(f"{seed}:{key}".encode()) & 0xFFFFFFFF)
    if key.endswith("running_var"):
        value = 0.5 + draw.rand(*shape)
    elif key.endswith("running_mean"):
        value = 0.1 * draw.standard_normal(shape)
    elif len(shape) <= 1:
        value = float(key.endswith("weight")) + 0.1 * draw.standard_normal(shape)
    else:
        value = gain * draw.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float64)).float()


def check_sums(state: dict[str, Tensor], checksums: dict[str, Any]) -> None:
    """Compare with the case's [shape, sum, sum of absolute values] of a few entries."""
    for key, (shape, total, absolute) in checksums.items():
        assert list(state[key].shape) == shape, f"{key}: shape {tuple(state[key].shape)}, the case has {shape}"
        value = state[key].double()
        assert abs(float(value.sum()) - total) < 1e-6 * max(absolute, 1), f"{key}: the sum differs"
        assert abs(float(value.abs().sum()) - absolute) < 1e-6 * max(absolute, 1), f"{key}: the sum differs"
