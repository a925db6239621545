"""Whether exported files answer like the model they came from, on real images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.export.parts import Part, Runner, run_parts

FLOAT_TOLERANCE = 1e-3
"""Largest difference of a logit, concept or message between PyTorch and an exported float model."""
INT8_AGREEMENT = 0.98
"""Least share of images that an 8-bit model puts into the same class as its original."""


@dataclass
class Parity:
    """What a comparison found.

    max_abs: output -> largest absolute difference, every part fed with the original's inputs (`link`: codes, in steps).
    end_to_end: largest difference of the prediction when the exported parts feed each other. agreement: share of images
    with the same class, or in regression the explained share of the variance. batch_sizes: that were run.
    """

    max_abs: dict[str, float] = field(default_factory=dict)
    end_to_end: float = 0.0
    agreement: float = 1.0
    images: int = 0
    batch_sizes: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def compare(
    parts: Sequence[Part],
    runners: Sequence[Runner],
    images: Tensor,
    *,
    task: str = "classification",
    batch_size: int = 32,
) -> Parity:
    """Compare the parts' own modules with their exported runners; the first of the images (N, C, H, W) alone, then
    all of them in batches."""
    chunks = [images[:1], *images.split(batch_size)]
    found = Parity(images=len(images), batch_sizes=(1, len(chunks[1])))
    agreed = 0.0
    for number, chunk in enumerate(chunks):
        expected = run_parts(parts, chunk)
        for part, run in zip(parts, runners):
            for name, value in zip(part.outputs, run(*(expected[each] for each in part.inputs))):
                found.max_abs[name] = max(found.max_abs.get(name, 0.0), difference(expected[name], value))
        composed = run_parts(parts, chunk, runners)["prediction"]
        found.end_to_end = max(found.end_to_end, difference(expected["prediction"], composed))
        if number:
            agreed += agreement(expected["prediction"], composed, task=task) * len(chunk) / len(images)
    found.agreement = agreed
    return found


def difference(expected: Tensor, found: Tensor) -> float:
    """The largest absolute difference; infinite where a value is not finite or the shapes differ."""
    if expected.shape != found.shape:
        return float("inf")
    apart = (expected.double() - found.double()).abs().max().item()
    return apart if apart == apart else float("inf")


def agreement(expected: Tensor, found: Tensor, *, task: str) -> float:
    """Share of rows with the same largest entry; in regression the explained share of the variance."""
    if expected.shape != found.shape:
        return 0.0
    if task == "classification":
        return (expected.argmax(-1) == found.argmax(-1)).double().mean().item()
    if len(expected) == 1:
        return 1.0
    spread = (expected - expected.mean(0)).square().mean().clamp_min(1e-12)
    return 1 - ((expected - found).square().mean() / spread).item()


def failures(found: Parity, parts: Sequence[Part], *, tolerance: float) -> list[str]:
    """Why float files are not the model, a line each.

    A code on a link may round to the neighbouring step where the real value lies between two; then the prediction
    behind it moves by what a step is worth, and the answers have to agree instead.
    """
    fed = [(name, tensor) for part in parts for name, tensor in zip(part.inputs, part.example)]
    codes = {"code", *(name for name, tensor in fed if not tensor.is_floating_point())}
    lines = []
    for name, apart in found.max_abs.items():
        allowed = max(1.0, tolerance) if name in codes else tolerance
        if not apart <= allowed:
            lines.append(f"{name} differs by {apart:.3g} (allowed {allowed:g})")
    rounded = any(found.max_abs.get(name, 0.0) > 0 for name in codes)
    if rounded and found.agreement < INT8_AGREEMENT:
        lines.append(f"head and tail together agree on {found.agreement:.1%} of the images only")
    if not rounded and len(parts) > 1 and not found.end_to_end <= tolerance:
        lines.append(f"head and tail together differ by {found.end_to_end:.3g} (allowed {tolerance:g})")
    return lines
