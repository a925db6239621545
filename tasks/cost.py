"""What one image costs a model: parameters, multiply-accumulates, latency on this machine's processor."""

import statistics
import time

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from zoo.models.contract import ZooModel


def parameter_count(model: ZooModel) -> int:
    """Parameters that inference needs (a teacher is left out)."""
    skip = type(model).training_only
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith(skip))


@torch.inference_mode()
def macs(model: ZooModel, image: Tensor) -> int:
    """Multiply-accumulates of matrix products, convolutions and attention for one image (1, C, H, W)."""
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() // 2


@torch.inference_mode()
def latency_ms(model: ZooModel, image: Tensor, *, repeats: int = 30, budget_s: float = 2.0) -> float:
    """Median milliseconds of one forward pass of `image`, after a warm-up, within `budget_s` seconds."""
    model.eval()
    model(image)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < repeats and (time.perf_counter() - begin < budget_s or not times):
        start = time.perf_counter()
        model(image)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3
