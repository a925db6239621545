"""Parity with the reference implementations: every case below ZOO_GOLDEN runs through the adapter of its target.

pytest tests/golden                    all cases
pytest tests/golden -k litv2           one system
ZOO_GOLDEN=folder pytest tests/golden  other cases of the same targets

Those of operations run a second time, through the Triton kernels in the interpreter.
"""

import pytest

from tests.golden.cases import FOLDER, discover, paths, read_case, run
from tests.kernels.harness import interpreter_test

PATHS = paths()
ADAPTERS = discover()

pytestmark = pytest.mark.skipif(not PATHS, reason=f"no golden cases at {FOLDER.name}: set ZOO_GOLDEN")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_parity(path):
    case = read_case(path)
    adapter = ADAPTERS.get((case.system, case.target))
    if adapter is None:
        pytest.skip(f"no adapter for system {case.system}, target {case.target}")
    run(case, adapter)


test_kernels_in_the_interpreter = pytest.mark.slow(interpreter_test("interpret_golden.py", timeout=580))
