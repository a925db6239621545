"""The preprocessing kernel in the interpreter, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.preprocess import reference
from zoo.kernels.preprocess.triton import launch

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [(5, 67), (1, 1), (20, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_kernel(antialias, size, channels):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 13, 17, channels), dtype=torch.uint8)
    boxes = torch.tensor([[0, 0, 13, 17], [3, 5, 1, 9]])
    flips = torch.tensor([True, False])
    mean, std = MEAN[:channels], STD[:channels]
    with GuardBands() as guard:
        y = launch(
            guard.input(images),
            guard.input(boxes),
            guard.input(flips),
            size,
            mean,
            std,
            antialias,
            False,
            torch.float32,
        )
        guard.check(y)
    want = reference.preprocess(images, boxes, size, torch.tensor(mean), torch.tensor(std), antialias=antialias)
    want[0] = want[0].flip(-1)
    close(y, want, tolerance=1e-5)


def test_rounding_and_half_precision():
    images = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8)
    boxes = torch.tensor([[0, 0, 8, 8]])
    y = launch(images, boxes, None, (3, 3), [0.0] * 3, [1.0] * 3, True, True, torch.float32) * 255
    close(y, y.round(), tolerance=1e-6)
    half = launch(images, boxes, None, (3, 3), [0.0] * 3, [1.0] * 3, True, True, torch.float16)
    close(half, (y / 255).half(), tolerance=1e-3)


def test_without_boxes_and_flips():
    images = torch.randint(0, 256, (2, 9, 12, 3), dtype=torch.uint8)
    whole = torch.tensor([[0, 0, 9, 12]] * 2)
    plain, boxed = (launch(images, it, None, (4, 5), MEAN, STD, True, False, torch.float32) for it in (None, whole))
    assert torch.equal(plain, boxed)


def test_a_box_that_leaves_the_image_is_cut():
    """In a CUDA graph nobody can refuse it; nothing outside the image may be read."""
    images = torch.randint(0, 256, (4, 9, 12, 3), dtype=torch.uint8)
    boxes = torch.tensor([[4, 6, 100, 100], [-3, -2, 5, 5], [50, 50, 4, 4], [2, 2, -1, 0]])
    inside = torch.tensor([[4, 6, 5, 6], [0, 0, 5, 5], [8, 11, 1, 1], [2, 2, 1, 1]])
    with GuardBands() as guard:
        given = guard.input(images), guard.input(boxes)
        y = launch(*given, None, (4, 5), MEAN, STD, True, False, torch.float32)
        guard.check(y)
    want = reference.preprocess(images, inside, (4, 5), torch.tensor(MEAN), torch.tensor(STD))
    close(y, want, tolerance=1e-5)
