"""Golden cases and their adapters.

An adapter rebuilds one (system, target) from a case's arguments and returns what the reference implementation returned:

    @adapter("vib", "VIB.loss")
    def vib_loss(case: Case) -> dict[str, Tensor]:
        ...
        return {"output/total_loss": loss, **case.gradients(loss, {"grad/total_loss/mu": mu})}

Adapters stand in the tests of what they check (tests/models/<family>/test_<name>.py); `discover` imports every test
file that mentions `golden.cases`, so no list of them is kept anywhere.

What is compared, and how closely, is what the cases say and nothing more lenient. An argument that an adapter neither
reads nor names under `repeats` is warned of: it might change another case's result.
"""

import importlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

TESTS = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("ZOO_GOLDEN", TESTS.parent.parent / "shared" / "golden"))

Result = dict[str, Any]
Adapter = Callable[["Case"], Result]
ADAPTERS: dict[tuple[str, str], Adapter] = {}
REPEATED: dict[tuple[str, str], frozenset[str]] = {}


def adapter(system: str, *targets: str, repeats: Sequence[str] = ()) -> Callable[[Adapter], Adapter]:
    """Register a function for the given targets of a system.

    repeats: arguments that say what the tensors say too (sizes), or how the inputs were drawn.
    """

    def register(function: Adapter) -> Adapter:
        for target in targets:
            if (system, target) in ADAPTERS:
                raise ValueError(f"two adapters for system {system}, target {target}")
            ADAPTERS[system, target], REPEATED[system, target] = function, frozenset(repeats)
        return function

    return register


class Arguments(dict[str, Any]):
    """A case's arguments, and which of them were read."""

    def __init__(self, given: dict[str, Any]):
        super().__init__(given)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


@dataclass
class Case:
    """One golden case. Tensors are loaded on first use; `input`, `param` and `wanted` are keyed without their prefix
    ("x"), `wanted` with it ("output/y", "grad/x")."""

    path: Path
    spec: dict[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        self.system: str = self.spec["system"]
        self.target: str = self.spec["target"]
        self.arguments = Arguments(self.spec.get("arguments") or {})
        self.expected: dict[str, Any] = self.spec.get("expected") or {}
        self.mode: str = self.spec.get("mode", "eval")
        self.tensors: dict[str, Tensor] | None = None

    @property
    def name(self) -> str:
        return f"{self.system}/{self.spec['case']}"

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.spec.get("dtype", "float32"))

    def _part(self, *prefixes: str, strip: bool) -> dict[str, Tensor]:
        if self.tensors is None:
            table = self.spec.get("kind") == "table"
            device = str(torch.get_default_device())
            self.tensors = {} if table else load_file(self.path.with_suffix(".safetensors"), device=device)
        return {
            (key.split("/", 1)[1] if strip else key): value
            for key, value in self.tensors.items()
            if key.split("/", 1)[0] in prefixes
        }

    @property
    def input(self) -> dict[str, Tensor]:
        return self._part("input", strip=True)

    @property
    def param(self) -> dict[str, Tensor]:
        return self._part("param", strip=True)

    @property
    def wanted(self) -> dict[str, Tensor]:
        return self._part("output", "grad", strip=False)

    @staticmethod
    def gradients(scalar: Tensor, variables: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gradients of `scalar` with respect to `variables`, under the same keys."""
        grads = torch.autograd.grad(scalar, list(variables.values()), retain_graph=True)
        return dict(zip(variables, grads))

    def differentiated(self, variables: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those of `variables` whose gradient the case holds as `grad/<name>`, under that key."""
        return {f"grad/{name}": value for name, value in variables.items() if f"grad/{name}" in self.wanted}

    def tolerance(self, key: str) -> tuple[float, float]:
        own = self.spec.get("tolerances") or {}
        atol, rtol = own.get(key, (self.spec.get("atol"), self.spec.get("rtol")))
        return float(atol or 0), float(rtol or 0)

    def check(self, got: Result) -> None:
        """Compare an adapter's result with the case: every output and gradient, and every scalar in `expected`."""
        assert self.wanted or self.expected, f"{self.name}: the case holds nothing to compare"
        problems = [f"{key}: the adapter returned nothing" for key in sorted(self.wanted.keys() - got.keys())]
        for key in sorted(self.wanted.keys() & got.keys()):
            problems += self._compare(key, torch.as_tensor(got[key]), self.wanted[key])
        for key, value in self.expected.items():
            name = f"expected/{key}"
            if name not in got:
                problems.append(f"{name}: the adapter returned nothing")
            elif (wrong := self._differs(got[name], value, self.tolerance(name))) is not None:
                problems.append(f"{name}: {wrong}")
        assert not problems, f"{self.name}\n  " + "\n  ".join(problems)

    def _compare(self, key: str, got: Tensor, want: Tensor) -> list[str]:
        if got.numel() != want.numel():
            return [f"{key}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"]
        if got.shape != want.shape and want.numel() != 1:
            return [f"{key}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"]
        atol, rtol = self.tolerance(key)
        exact = not want.is_floating_point() and not want.is_complex()
        if exact and key not in (self.spec.get("tolerances") or {}):
            atol = rtol = 0.0
        kind = torch.complex128 if want.is_complex() else torch.float64
        got, want = got.detach().reshape(want.shape).to(kind), want.to(kind)
        finite = torch.isfinite(want)
        if not torch.allclose(got[~finite], want[~finite], atol=0, rtol=0, equal_nan=True):
            return [f"{key}: infinities or NaN at other places"]
        got, want = got[finite], want[finite]
        if not want.numel():
            return []
        error = (got - want).abs()
        over = ~(error <= atol + rtol * want.abs())
        if not over.any():
            return []
        worst = float(error.nan_to_num(float("inf")).max())
        return [f"{key}: {int(over.sum())} of {over.numel()} beyond atol {atol:g} rtol {rtol:g}, worst {worst:.3g}"]

    def _differs(self, got: Any, want: Any, tolerance: tuple[float, float], where: str = "") -> str | None:
        """Why a table entry or scalar differs, or None. Integers and strings are exact, floats within the tolerance."""
        if isinstance(got, Tensor):
            got = got.tolist()
        if isinstance(want, dict):
            missing = want.keys() - got.keys()
            if missing:
                return f"{where} lacks {sorted(missing)}"
            found = (self._differs(got[key], want[key], tolerance, f"{where}.{key}") for key in want)
            return next((problem for problem in found if problem), None)
        if isinstance(want, list):
            if len(got) != len(want):
                return f"{where} has {len(got)} entries, expected {len(want)}"
            pairs = enumerate(zip(got, want))
            found = (self._differs(g, w, tolerance, f"{where}[{i}]") for i, (g, w) in pairs)
            return next((problem for problem in found if problem), None)
        if isinstance(want, float):
            atol, rtol = tolerance
            return None if abs(float(got) - want) <= atol + rtol * abs(want) else f"{where} is {got}, expected {want}"
        return None if got == want else f"{where} is {got}, expected {want}"


@contextmanager
def arithmetic_of(case: Case) -> Iterator[None]:
    """The precision that the case is meant to run in, and one thread, so that sums are taken in one order: the number
    of threads alone moves the gradients of a ResNet-50 with training BatchNorm beyond what its case allows."""
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64 if case.dtype == torch.float64 else torch.float32)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)


def run(case: Case, adapter: Adapter) -> None:
    """Run a case through its adapter and compare; a warning names the arguments that the adapter did not look at.

    Raises:
        AssertionError: the results differ.
    """
    with arithmetic_of(case):
        result = adapter(case)
    unknown = sorted(case.arguments.keys() - case.arguments.read - REPEATED[case.system, case.target])
    if unknown:
        warnings.warn(f"{case.name}: the adapter does not know the arguments {', '.join(unknown)}", stacklevel=2)
    case.check(result)


def paths() -> list[Path]:
    """The file of every case below the golden folder, sorted by system and name.

    Raises:
        ValueError: ZOO_GOLDEN names a folder without cases.
    """
    found = sorted(FOLDER.glob("*/*.json"))
    if not found and "ZOO_GOLDEN" in os.environ:
        raise ValueError(f"ZOO_GOLDEN={FOLDER}: no <system>/<case>.json there")
    return found


def cases() -> list[Case]:
    """Every case below the golden folder."""
    return [read_case(path) for path in paths()]


def read_case(path: Path) -> Case:
    """The case of a file, or a ValueError that names it."""
    try:
        spec = json.loads(path.read_text())
        return Case(path, {"system": path.parent.name, "case": path.stem} | spec)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.parent.name}/{path.name} is no golden case: {error!r}") from error


def discover() -> dict[tuple[str, str], Adapter]:
    """Import the test files that register adapters and return what they registered."""
    for file in sorted(TESTS.rglob("test_*.py")):
        if file.parent.name != "golden" and "golden.cases" in file.read_text():
            importlib.import_module(".".join(file.relative_to(TESTS.parent).with_suffix("").parts))
    return ADAPTERS
