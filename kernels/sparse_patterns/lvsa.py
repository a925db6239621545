"""LVSA: windows of neighbouring frames and rotating anchors, for long videos without training (gglorian/LVSA, 2026).

Units are frames; a token attends to every token of the frames its own frame attends to. Frames may as well be rows or
tiles of a large image, and the rotation may run over layers instead of denoising steps. Where the document and the
released code disagree on the distance of anchors (already at 34 frames for a reference of 33), the code is followed.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LvsaPattern:
    """distance: frames between anchors. anchors: frames that everybody sees. attended: per frame, what it sees."""

    distance: int
    anchors: tuple[int, ...]
    attended: tuple[tuple[int, ...], ...]

    @property
    def sparsity(self) -> float:
        """Share of frame pairs that are not computed."""
        return 1 - sum(map(len, self.attended)) / len(self.attended) ** 2

    def block_mask(self) -> Tensor:
        """(frames, frames) bool for `attention(block_mask=..., block_size=(tokens, tokens))`."""
        mask = torch.zeros(len(self.attended), len(self.attended), dtype=torch.bool)
        for frame, seen in enumerate(self.attended):
            mask[frame, list(seen)] = True
        return mask


def lvsa_pattern(
    frames: int, *, window: int = 3, first: int = 1, reference: int = 21, scale: float = 1.0, offset: int = 0
) -> LvsaPattern:
    """The pattern for `frames` frames.

    window: neighbours on each side. first: leading frames that are always anchors. reference, scale: the length that
    the model was trained on and a factor on it; up to that length attention is dense. offset: rotation of the anchors,
    one more at every denoising step.
    """
    distance = _anchor_distance(frames, window, first, max(first + 1, int(reference * scale)))
    anchors = set(range(first)) | {(offset + i * distance) % frames for i in range(math.ceil(frames / distance))}
    attended = tuple(tuple(sorted(anchors | _window(f, frames, window, anchors))) for f in range(frames))
    return LvsaPattern(distance, tuple(sorted(anchors)), attended)


def _anchor_distance(frames: int, window: int, first: int, reference: int) -> int:
    """The largest distance at which window and anchors still hold as many frames as the reference length."""
    if frames <= reference:
        return 1
    target = max(first, reference - min(2 * window + 1, frames))
    strict = next(d for d in range(frames, 0, -1) if len({*range(first), *range(0, frames, d)}) >= target)
    fixed = 2 * window + first
    return max(strict, math.ceil(max(frames - fixed, reference - fixed) / max(reference - fixed, 1)))


def _window(frame: int, frames: int, window: int, anchors: set[int]) -> set[int]:
    """Neighbours of a frame, shifted inwards at the ends, grown left and right in turn until 2 W + 1 are no anchors."""
    if window == 0:
        return set()
    low = max(0, min(frame - window, frames - 1 - 2 * window))
    high = min(frames - 1, max(frame + window, 2 * window))
    wanted = min(2 * window + 1, frames - len(anchors))
    to_left = True
    while len(set(range(low, high + 1)) - anchors) < wanted:
        if to_left and low > 0:
            low -= 1
        elif not to_left and high < frames - 1:
            high += 1
        to_left = not to_left
    return set(range(low, high + 1))
