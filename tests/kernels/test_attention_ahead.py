"""What the attention launcher chooses on the main shapes compiles without a GPU, fits and spills nothing.

Heads of 64 and 128 channels in 16 bits; of other targets than sm_80 and sm_90 the plain kernels stand for all.
"""

import pytest

from tests.kernels.harness import check_ahead
from zoo.kernels.attention.configurations import FEATURES, configurations

MATRIX = ("forward", "dq", "dk", "dbias")
MAIN = ("plain", "window, bias, key lengths")
MACHINE = {"sm_80": {"in_registers": True}, "sm_100": {"in_registers": True}, "gfx942": {"amd": True}}


def check(target: str, width: int, features: tuple[str, ...]) -> None:
    """Distinct configurations only: several names can stand for one."""
    seen = set()
    for configuration in configurations(
        features=features, dtypes=("bf16",), widths=(width,), **MACHINE.get(target, {})
    ):
        key = (configuration.kernel.fn.__name__, str(configuration.constants), str(configuration.options))
        if key not in seen:
            seen.add(key)
            check_ahead([configuration], target, matrix=configuration.name.startswith(MATRIX))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("width", "features"), [(64, tuple(FEATURES)), (128, MAIN)], ids=["64", "128"])
def test_main_shapes(target, width, features):
    check(target, width, features)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_100", "gfx942"])
def test_other_targets(target):
    check(target, 64, ("plain",))


def test_the_configuration_of_a_vision_transformer():
    """ViT-B's 64 channels at 197 tokens: the forward kernel, pipelined and on the matrix units."""
    wanted = (c for c in configurations(features=("plain",), dtypes=("bf16",), widths=(64,)) if "of 1000 q" in c.name)
    found = next(wanted).compile("sm_90")
    assert found.fits, found
    assert found.spilled == 0, found
    assert "HGMMA" in found.matrix, found
    assert found.copies > 0, found
    assert found.registers <= 128, found
