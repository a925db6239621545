"""The golden cases of operations, through the kernels."""

import pytest

from tests.golden.cases import cases, discover, run

ADAPTERS = {key: found for key, found in discover().items() if found.__module__.startswith("tests.kernels")}
CASES = [case for case in cases() if (case.system, case.target) in ADAPTERS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parity(case):
    run(case, ADAPTERS[case.system, case.target])
