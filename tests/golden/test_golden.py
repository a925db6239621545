"""Parity with the reference implementations: every case below ZOO_GOLDEN runs through the adapter of its target.

pytest tests/golden                    all cases
pytest tests/golden -k litv2           one system
ZOO_GOLDEN=folder pytest tests/golden  other cases of the same targets
"""

import pytest

from tests.golden.cases import FOLDER, cases, discover

CASES = cases()
ADAPTERS = discover()

pytestmark = pytest.mark.skipif(not CASES, reason=f"no golden cases at {FOLDER.name}: set ZOO_GOLDEN")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parity(case):
    adapter = ADAPTERS.get((case.system, case.target))
    if adapter is None:
        pytest.skip(f"no adapter for system {case.system}, target {case.target}")
    case.check(adapter(case))
