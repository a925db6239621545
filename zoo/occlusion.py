"""Where in an image a classifier read its answer: what its probability loses when a place is hidden.

Occlusion sensitivity, of Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, section 3
(arXiv 1311.2901).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 0.01
"""A drop of the probability that says something about its place."""
ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


@dataclass(frozen=True)
class Occlusion:
    """What hiding each place does.

    probability: of the answer for the whole image. patch, stride: (height, width) in pixels. tops, lefts: the places'
        first pixels; the last place of each side ends with the image. drops: (tops, lefts), how much of the
        probability is lost without the place; below 0 where it grows.
    """

    probability: float
    patch: tuple[int, int]
    stride: tuple[int, int]
    tops: list[int]
    lefts: list[int]
    drops: Tensor

    @property
    def decides(self) -> bool:
        """Whether some place alone matters."""
        return self.drops.max().item() >= LEAST

    @property
    def strongest(self) -> tuple[float, float]:
        """The centre of the place with the greatest drop, as shares of the height and the width."""
        row, column = divmod(int(self.drops.argmax()), len(self.lefts))
        sides = ((self.tops, row, self.patch[0]), (self.lefts, column, self.patch[1]))
        down, right = ((begins[at] + patch / 2) / (begins[-1] + patch) for begins, at, patch in sides)
        return down, right


@torch.inference_mode()
def occlude(
    model: Callable[[Tensor], Tensor], image: Tensor, *, grey: Tensor | float = 0.0, batch_size: int = 64
) -> Occlusion:
    """Hide one place after another of an image (C, H, W), patches of a quarter of its sides in steps of an eighth.

    Args:
        model: images (B, C, H, W) -> class logits (B, M).
        grey: what hides a place; 0 is the data's mean in a normalised image.
    """
    whole = model(image[None])[0].float().softmax(-1)
    answer = int(whole.argmax())
    patch, stride = ([max(1, round(side / part)) for side in image.shape[1:]] for part in (4, 8))
    tops, lefts = map(_begins, image.shape[1:], patch, stride)
    places = [(top, left) for top in tops for left in lefts]
    left_over = []
    for begin in range(0, len(places), batch_size):
        some = places[begin : begin + batch_size]
        hidden = image.expand(len(some), *image.shape).clone()
        for one, (top, left) in zip(hidden, some):
            one[:, top : top + patch[0], left : left + patch[1]] = grey
        left_over.append(model(hidden).float().softmax(-1)[:, answer])
    drops = (whole[answer] - torch.cat(left_over)).view(len(tops), len(lefts)).cpu()
    return Occlusion(whole[answer].item(), (patch[0], patch[1]), (stride[0], stride[1]), tops, lefts, drops)


def _begins(side: int, patch: int, stride: int) -> list[int]:
    """Where the places begin: every stride, and flush with the end so that no pixel is left out.

    >>> _begins(8, 2, 1), _begins(28, 7, 4)
    ([0, 1, 2, 3, 4, 5, 6], [0, 4, 8, 12, 16, 20, 21])
    """
    last = side - patch
    return [*range(0, last, stride), last]


def region(place: tuple[float, float]) -> str:
    """The ninth of the image in which a place lies, in words.

    >>> region((0.1, 0.2)), region((0.5, 0.9)), region((0.5, 0.5))
    ('upper left', 'middle right', 'centre')
    """
    row, column = (min(int(3 * share), 2) for share in place)
    return "centre" if row == column == 1 else f"{ROWS[row]} {COLUMNS[column]}"


def in_a_line(found: Occlusion) -> str:
    """Where the answer was read, in words."""
    if not found.decides:
        return "no place alone decides"
    without = found.probability - found.drops.max().item()
    return f"read most from the {region(found.strongest)}: without it {without:.1%} instead of {found.probability:.1%}"
