"""A metric's settings as a state, so that a `torchmetrics.MetricCollection` tells metrics apart that differ in them."""

from zlib import crc32

import torch
from torchmetrics import Metric


def keep_apart(metric: Metric, *settings: object) -> None:
    """Add a state `setting` that is equal for equal settings only.

    A collection updates only one of two metrics whose states are equal after the first batch, as those of two curves
    are where the first batch happens to give both the same; the other then silently takes on its figures.
    """
    metric.add_state("setting", torch.tensor(crc32(repr(settings).encode()) / 2**32), dist_reduce_fx="max")
