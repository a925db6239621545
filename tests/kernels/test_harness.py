"""Ahead-of-time compilation says what a kernel needs, for every target; the interpreter harness works."""

import pytest

from tests.kernels.harness import interpreter_test, run_interpreted
from tests.kernels.toy_kernel import product_kernel
from zoo.kernels.aot import compile_ahead

test_interpreter = interpreter_test("interpret_harness.py")

TYPES = {"a": "*bf16", "b": "*bf16", "c": "*fp32", "M": "i32", "N": "i32", "K": "i32"}
TILES = {"BM": 128, "BN": 64, "BK": 64}


@pytest.mark.parametrize(
    ("target", "instruction"), [("sm_80", "HMMA"), ("sm_90", "HGMMA"), ("sm_100", "UTCHMMA"), ("gfx942", "v_mfma")]
)
def test_resources(target, instruction):
    found = compile_ahead(product_kernel, TYPES, TILES, target=target, aligned=("N", "K"), num_warps=4, num_stages=3)
    assert any(name.startswith(instruction) for name in found.matrix), found
    assert found.fits, found
    assert found.spilled == 0, found
    assert found.shared > 0
    assert found.warps == 4
    assert 16 < found.registers <= 512
    if target == "sm_90":
        assert found.copies > 0, found


def test_spills_are_seen():
    found = compile_ahead(product_kernel, TYPES, TILES | {"BN": 256, "BK": 32}, target="sm_80", num_warps=4, maxnreg=64)
    assert found.spilled > 0


def test_too_much_shared_memory_does_not_fit():
    found = compile_ahead(
        product_kernel, TYPES, {"BM": 128, "BN": 256, "BK": 128}, aligned=("N", "K"), num_warps=8, num_stages=4
    )
    assert found.shared > 232_448
    assert not found.fits


def test_the_interpreter_cannot_compile():
    code = (
        "from tests.kernels.toy_kernel import product_kernel\n"
        "from zoo.kernels.aot import compile_ahead\n"
        "try: compile_ahead(product_kernel, {}, {})\n"
        "except RuntimeError as error: print(error)"
    )
    assert "without TRITON_INTERPRET" in run_interpreted(code)
