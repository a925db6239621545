"""What every kernel's test uses: a process with Triton's interpreter, guard bands, and tolerances by dtype.

tests/kernels/test_<op>.py       ordinary tests, and `test_interpreter = interpreter_test("interpret_<op>.py")`
tests/kernels/interpret_<op>.py  tests of the Triton kernel; not collected by itself, run with TRITON_INTERPRET=1, and
                                 on a GPU by test_on_gpu.py
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.kernels.aot import Configuration
from zoo.kernels.requirements import problem_here

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
MARGIN = 128
SENTINEL = 113
"""What lies around an output: exact in every dtype, unlikely as a result."""

PARKED = 16
"""Bytes that a main shape may spill under another version of Triton than the table's: some park up to four registers
before a loop and fetch them after it."""

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def interpreter_test(*arguments: str, timeout: float = 300) -> Callable[[], None]:
    """A test that runs `pytest ARGUMENTS` (files beside this one) in a process with the interpreter on."""

    def test_interpreter() -> None:
        problem = problem_here(interpreted=True)
        assert problem is None, problem
        files = [str(FOLDER / word) if word.endswith(".py") else word for word in arguments]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        done = _run(command, timeout)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    return test_interpreter


def run_interpreted(code: str, timeout: float = 120) -> str:
    """Run a snippet in a process with the interpreter on and return what it printed."""
    done = _run([sys.executable, "-c", code], timeout)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def _run(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def close(got: Tensor, want: Tensor, *, tolerance: float | None = None, name: str = "") -> None:
    """Largest difference relative to the largest expected value, within the dtype's tolerance."""
    assert got.shape == want.shape, f"{name}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    limit = TOLERANCE[got.dtype] if tolerance is None else tolerance
    got, want = got.detach().double(), want.detach().double()
    assert torch.equal(got.isfinite(), want.isfinite()), f"{name}: not finite at other places"
    infinite = ~want.isfinite()
    assert torch.equal(got[infinite], want[infinite]), f"{name}: other infinities"
    got, want = got[~infinite], want[~infinite]
    if want.numel():
        error = float((got - want).abs().max()) / max(1.0, float(want.abs().max()))
        assert error <= limit, f"{name}: relative error {error:.3g} beyond {limit:g}"


def check_compiled(function: Callable[..., Any], *arguments: Any) -> None:
    """torch.compile(fullgraph=True) gives the eager result."""
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    _all_close(compiled(*arguments), function(*arguments))


def check_dynamic(function: Callable[..., Any], *calls: tuple[Any, ...]) -> None:
    """One graph of torch.compile(dynamic=True) gives the eager result of all calls, which differ in their sizes, and
    torch.export with a batch of any size gives those of the calls that differ from the first in nothing else."""
    torch._dynamo.reset()
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    compiled(*calls[0])
    graphs = backend.frame_count
    for arguments in calls:
        _all_close(compiled(*arguments), function(*arguments))
    assert backend.frame_count == graphs, f"{len(calls)} sizes were compiled {1 + backend.frame_count - graphs} times"

    class Wrapped(torch.nn.Module):
        def forward(self, *values: Any) -> Any:
            return function(*values)

    first = calls[0]
    free = tuple({0: torch.export.Dim("batch")} if index == 0 else None for index in range(len(first)))
    program = torch.export.export(Wrapped().eval(), first, dynamic_shapes=(free,))
    for arguments in calls:
        fits = arguments[0].shape[1:] == first[0].shape[1:]
        if fits and all(given is same for given, same in zip(arguments[1:], first[1:])):
            _all_close(program.module()(*arguments), function(*arguments))


def check_exported(function: Callable[..., Any], *arguments: Any) -> torch.export.ExportedProgram:
    """torch.export gives the eager result, through ATen alone: no `zoo::` operator is left in the graph."""

    class Wrapped(torch.nn.Module):
        def forward(self, *values: Any) -> Any:
            return function(*values)

    program = torch.export.export(Wrapped().eval(), arguments)
    left = {str(node.target) for node in program.graph.nodes if str(node.target).startswith("zoo")}
    assert not left, f"left in the exported graph: {left}"
    _all_close(program.module()(*arguments), function(*arguments))
    return program


def check_onnx(function: Callable[..., Any], *arguments: Tensor, path: Path, tolerance: float = 1e-4) -> None:
    """onnxruntime gives the eager result for the exported function."""
    import onnxruntime

    class Wrapped(torch.nn.Module):
        def forward(self, *values: Any) -> Any:
            return function(*values)

    file = path / "function.onnx"
    torch.onnx.export(Wrapped().eval(), arguments, file, dynamo=True, external_data=False, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    got = session.run(None, {name: value.numpy() for name, value in zip(names, arguments)})
    want = function(*arguments)
    want = want if isinstance(want, tuple) else (want,)
    for g, w in zip(got, want, strict=True):
        close(torch.from_numpy(g), w, tolerance=tolerance)


def check_ahead(
    configurations: Iterable[Configuration], *targets: str, matrix: bool = False, registers: int = 255
) -> None:
    """Every configuration compiles, fits, spills nothing (but PARKED), stays within `registers`, uses matrix units."""
    for configuration in configurations:
        for target in targets:
            found = configuration.compile(target)
            where = f"{configuration.name} {found}"
            assert found.fits, where
            assert found.spilled <= PARKED, where
            assert found.registers <= (512 if target.startswith("gfx") else registers), where
            assert bool(found.matrix) or not matrix, where


def _all_close(got: Any, want: Any) -> None:
    got, want = (value if isinstance(value, tuple) else (value,) for value in (got, want))
    for g, w in zip(got, want, strict=True):
        close(g, w) if g.is_floating_point() else torch.testing.assert_close(g, w)


class GuardBands(TorchDispatchMode):
    """Puts bands around every tensor that is allocated inside, and poison into it, and checks the bands at the end.

        with GuardBands() as guard:
            y = launch(guard.input(x))        # x lies inside NaN; y = torch.empty(...) lies inside sentinels

    A kernel that writes outside its output changes a band; one that reads outside its input meets NaN; one that leaves
    a lane of `torch.empty` unwritten returns NaN. `guard.check(y)` asserts that no NaN is left.
    """

    ALLOCATE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
    FILL = ("zeros", "zeros_like", "new_zeros", "full", "full_like", "new_full", "ones", "ones_like", "new_ones")

    def __init__(self) -> None:
        super().__init__()
        self.bands: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = str(func.overloadpacket).removeprefix("aten.")
        if packet not in self.ALLOCATE + self.FILL or not isinstance(out, Tensor) or not out.numel():
            return out
        inside = place(out, SENTINEL)
        inside.copy_(out) if packet in self.FILL else inside.fill_(poison(out.dtype))
        self._watch(inside)
        return inside

    def input(self, tensor: Tensor) -> Tensor:
        """A copy of `tensor`, with its strides, that lies inside NaN (integers: the largest value)."""
        if not tensor.numel():
            return tensor
        return place(tensor, poison(tensor.dtype)).copy_(tensor).detach()

    def check(self, *tensors: Tensor) -> None:
        """No NaN is left in a result."""
        for index, tensor in enumerate(tensors):
            assert not tensor.isnan().any(), f"result {index} holds NaN: an unwritten lane, or a read out of bounds"

    def _watch(self, inside: Tensor) -> None:
        whole = torch.as_strided(inside, (inside.untyped_storage().nbytes() // inside.element_size(),), (1,), 0)
        outside = torch.ones(whole.shape, dtype=torch.bool, device=whole.device)
        torch.as_strided(outside, inside.shape, inside.stride(), inside.storage_offset()).fill_(False)
        self.bands.append((whole, outside))

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if error[0] is None:
            for whole, outside in self.bands:
                assert bool((whole[outside] == torch.tensor(SENTINEL).to(whole.dtype)).all()), (
                    "a kernel wrote outside its output"
                )


def place(like: Tensor, fill: float) -> Tensor:
    """Uninitialised memory with the shape and strides of `like`, `MARGIN` elements of `fill` before and behind it."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(like.shape, like.stride()))
    buffer = torch.empty(extent + 2 * MARGIN, dtype=like.dtype, device=like.device)
    buffer.fill_(fill)
    return torch.as_strided(buffer, like.shape, like.stride(), MARGIN)


def poison(dtype: torch.dtype) -> float:
    """What an unwritten element holds."""
    if dtype == torch.bool:
        return True
    return float("nan") if dtype.is_floating_point or dtype.is_complex else torch.iinfo(dtype).max
