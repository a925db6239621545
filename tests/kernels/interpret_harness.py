"""The guard bands catch what they claim to catch."""

import pytest
import torch

from tests.kernels.harness import GuardBands
from tests.kernels.toy_kernel import double_kernel


def launch(x: torch.Tensor, block: int, masked: bool) -> torch.Tensor:
    y = torch.empty_like(x)
    double_kernel[(-(-x.numel() // block),)](x, y, x.numel(), BLOCK=block, MASKED=masked)
    return y


@pytest.mark.parametrize("n", [1, 37, 64])
def test_a_right_kernel_passes(n):
    x = torch.randn(n)
    with GuardBands() as guard:
        y = launch(guard.input(x), 16, True)
        guard.check(y)
    assert torch.equal(y, 2 * x)


def test_a_missing_mask_is_caught():
    with pytest.raises(AssertionError, match="outside its output"), GuardBands() as guard:
        launch(guard.input(torch.randn(37)), 16, False)


def half_written() -> None:
    with GuardBands() as guard:
        x = guard.input(torch.randn(37))
        y = torch.empty_like(x)
        double_kernel[(2,)](x, y, 37, BLOCK=16, MASKED=True)
        guard.check(y)


def test_an_unwritten_lane_is_caught():
    with pytest.raises(AssertionError, match="unwritten lane"):
        half_written()


def test_bands_keep_strides_and_values():
    with GuardBands() as guard:
        x = torch.randn(5, 7).t()
        inside = guard.input(x)
        assert torch.equal(inside, x)
        assert inside.stride() == x.stride()
        assert torch.zeros(3).sum() == 0
        assert torch.zeros_like(x, dtype=torch.int32).dtype == torch.int32
