"""Ahead-of-time compilation of all that the launchers can choose, for GPUs that are not there.

benchmarks/kernels_aot.csv holds every configuration (python benchmarks/kernels_aot.py writes it); here the table is
held to the launchers, and a sample of it is compiled again.
"""

import importlib.metadata
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import pytest

from benchmarks.kernels_aot import TABLE, compile_row
from tests.kernels.harness import PARKED
from zoo.kernels.aot import AMD_SHARED_LIMIT, SHARED_LIMITS
from zoo.kernels.catalogue import TARGETS, catalogue, fingerprint, operations, read_table

VERSION = importlib.metadata.version("triton")


@cache
def table() -> dict[tuple[str, str], dict[str, str]]:
    return {(line["target"], line["configuration"]): line for line in read_table(TABLE)}


def problems(line: dict[str, str], expects_matrix: bool, parked: int = 0) -> list[str]:
    """What is wrong with one line of the table, if anything; parked: bytes that a main shape may spill."""
    target, found = line["target"], []
    limit = SHARED_LIMITS.get(target, AMD_SHARED_LIMIT)
    amd = target.startswith("gfx")
    threads = int(line["warps"]) * (64 if amd else 32)
    if int(line["shared"]) > limit:
        found.append(f"{line['shared']} B of shared memory beyond {limit}")
    if int(line["registers"]) * threads > (131_072 if amd else 65_536):
        found.append(f"{line['registers']} registers for {threads} threads")
    if int(line["main"]) and int(line["spilled"]) > parked:
        found.append(f"a main shape spills {line['spilled']} B")
    if expects_matrix and not line["matrix"]:
        found.append("no matrix instruction")
    return [f"{target} {line['configuration']}: {problem}" for problem in found]


@pytest.mark.parametrize("operation", operations())
def test_the_table_holds_every_configuration(operation):
    """Missing, changed or left over: `python benchmarks/kernels_aot.py` compiles what changed."""
    wanted = {
        (target, name): fingerprint(entry) for target in TARGETS for name, entry in catalogue(target, operation).items()
    }
    held = {key: line["source"] for key, line in table().items() if key[1].startswith(f"{operation}:")}
    different = sorted(key for key in wanted.keys() | held.keys() if wanted.get(key) != held.get(key))
    assert not different, f"{len(different)} lines of {TABLE.name} are not what the launchers choose: {different[:5]}"


@pytest.mark.parametrize("target", TARGETS)
def test_everything_fits_and_main_shapes_spill_nothing(target):
    entries = catalogue(target)
    lines = [line for key, line in table().items() if key[0] == target and key[1] in entries]
    assert lines
    wrong = [problem for line in lines for problem in problems(line, entries[line["configuration"]].matrix)]
    assert not wrong, "\n".join(wrong)


def check_again(keys: list[tuple[str, str]]) -> None:
    """This machine's compiler finds the figures of the table if it is the table's, and otherwise nothing wrong."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for key, line in zip(keys, pool.map(compile_row, keys)):
            if table()[key]["triton"] == VERSION:
                assert line == table()[key]
            wrong = problems(line, catalogue(key[0], key[1].split(":")[0])[key[1]].matrix, PARKED)
            assert not wrong, wrong


def sample(operation: str, count: int) -> list[tuple[str, str]]:
    """Lines spread evenly over the table of one operation, every target among them."""
    keys = [key for key in table() if key[1].startswith(f"{operation}:") and key[1] in catalogue(key[0], operation)]
    return keys[len(keys) // (2 * count) :: max(1, len(keys) // count)][:count]


def test_a_line_of_the_table_can_be_compiled_again():
    check_again([("sm_90", "monarch: h = w1 x bf16, tf32x3")])


@pytest.mark.slow
@pytest.mark.parametrize("operation", operations())
def test_a_sample_compiles_as_the_table_says(operation):
    check_again(sample(operation, 8))
