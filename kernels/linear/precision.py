"""Sums over all tokens are kept in float32, whatever the dtype of the features or the autocast region around."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor


@contextmanager
def accumulated(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """`tensors` in float32 (float64 stays), and no autocast inside."""
    device = tensors[0].device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False) if autocast else nullcontext():
        yield tuple(x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors)
