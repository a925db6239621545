"""The kernels on a GPU: all that the interpreter checks, 16 bits, and NVIDIA's sanitizer. Skipped where there is none.

pytest tests/kernels/test_on_gpu.py        # some minutes, most of it compilation
"""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from tests.kernels.harness import FOLDER, ROOT, interpreter_test

FILES = sorted(path.name for path in FOLDER.glob("interpret_*.py"))
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

test_half_precision_in_the_interpreter = interpreter_test("interpret_half.py")


def run(*words: str, before: tuple[str, ...] = ()) -> None:
    command = [*before, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.kernels.on_gpu"]
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["ZOO_KERNELS"] = "always"
    if before:  # each tensor in memory of its own, or reads beyond one meet its neighbour
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    done = subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@on_gpu
@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_the_same_on_the_gpu(file):
    run(str(FOLDER / file), "-n", str(min(8, os.cpu_count() or 1)))


@on_gpu
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("compute-sanitizer"), reason="no compute-sanitizer on the path")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_the_sanitizer_finds_nothing(tool):
    run(str(FOLDER / "interpret_half.py"), before=("compute-sanitizer", "--tool", tool, "--error-exitcode", "9"))
