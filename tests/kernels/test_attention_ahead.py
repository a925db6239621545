"""Every configuration that the attention launcher can choose compiles without a GPU, fits and spills nothing."""

import pytest

from tests.kernels.harness import check_ahead
from zoo.kernels.attention import choice
from zoo.kernels.attention.configurations import FEATURES, configurations

MATRIX = ("forward", "dq", "dk", "dbias")


def check(*targets: str, **keywords) -> None:
    """Distinct configurations only: several names can stand for one."""
    seen = set()
    for configuration in configurations(**keywords):
        key = (configuration.kernel.fn.__name__, str(configuration.constants), str(configuration.options))
        if key not in seen:
            seen.add(key)
            check_ahead([configuration], *targets, matrix=configuration.name.startswith(MATRIX))


@pytest.mark.slow
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("width", choice.WIDTHS)
def test_sm_90(width, feature):
    check("sm_90", features=(feature,), dtypes=("bf16",), widths=(width,))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_100"])
@pytest.mark.parametrize("width", choice.WIDTHS)
def test_other_targets(width, target):
    check(target, features=("plain", "causal"), dtypes=("bf16",), widths=(width,))


@pytest.mark.slow
@pytest.mark.parametrize("width", choice.WIDTHS)
def test_gfx942(width):
    check("gfx942", features=("plain", "causal"), dtypes=("bf16",), widths=(width,), amd=True)


@pytest.mark.slow
@pytest.mark.parametrize("width", choice.WIDTHS)
def test_float32(width):
    check("sm_90", features=("plain", "causal"), dtypes=("fp32",), widths=(width,))


def test_the_configuration_of_a_vision_transformer():
    """ViT-B's 64 channels at 197 tokens: the forward kernel, pipelined and on the matrix units."""
    wanted = (c for c in configurations(features=("plain",), dtypes=("bf16",), widths=(64,)) if "of 1000 q" in c.name)
    found = next(wanted).compile("sm_90")
    assert found.fits, found
    assert found.spilled == 0, found
    assert "HGMMA" in found.matrix, found
    assert found.copies > 0, found
    assert found.registers <= 128, found
