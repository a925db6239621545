"""Sums over all tokens are kept in float32, whatever the dtype of the features or the autocast region around."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

WIDE = (torch.float32, torch.float64)
NOTHING = nullcontext()


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """`tensors` in float32; float64 stays."""
    return tuple(x if x.dtype in WIDE else x.to(torch.float32) for x in tensors)


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """A region in which nothing is cast, for the device of `tensor`."""
    device = tensor.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if autocast else NOTHING
