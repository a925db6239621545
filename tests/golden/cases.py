"""Golden cases and their adapters.

An adapter rebuilds one (system, target) from a case's arguments and returns what the reference implementation returned:

    @adapter("vib", "VIB.loss")
    def vib_loss(case: Case) -> dict[str, Tensor]:
        ...
        return {"output/total_loss": loss, **case.gradients(loss, {"grad/total_loss/mu": mu})}

Adapters stand in the tests of what they check (tests/models/<family>/test_<name>.py); `discover` imports every test
file that mentions `golden.cases`, so no list of them is kept anywhere.
"""

import importlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

TESTS = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("ZOO_GOLDEN", TESTS.parent.parent / "shared" / "golden"))

BACKPROP_ROUNDING = 1e-4
"""Share of a gradient's largest entry that float32 backpropagation through a whole network leaves to the order of sums:
the number of threads alone moves the gradients of a ResNet-50 with training BatchNorm by as much."""

Result = dict[str, Any]
Adapter = Callable[["Case"], Result]
ADAPTERS: dict[tuple[str, str], Adapter] = {}


def adapter(system: str, *targets: str) -> Callable[[Adapter], Adapter]:
    """Register a function for the given targets of a system."""

    def register(function: Adapter) -> Adapter:
        for target in targets:
            ADAPTERS[system, target] = function
        return function

    return register


@dataclass
class Case:
    """One golden case. Tensors are loaded on first use; `input`, `param` and `wanted` are keyed without their prefix
    ("x"), `wanted` with it ("output/y", "grad/x")."""

    path: Path
    spec: dict[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        self.system: str = self.spec["system"]
        self.target: str = self.spec["target"]
        self.arguments: dict[str, Any] = self.spec.get("arguments") or {}
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
            file = self.path.with_suffix(".safetensors")
            self.tensors = load_file(file) if file.is_file() else {}
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

    def tolerance(self, key: str) -> tuple[float, float]:
        atol, rtol = self.spec.get("tolerances", {}).get(key, (self.spec.get("atol", 0), self.spec.get("rtol", 0)))
        return float(atol or 0), float(rtol or 0)

    def check(self, got: Result) -> None:
        """Compare an adapter's result with the case: every output and gradient, and every scalar in `expected`."""
        problems = [f"{key}: the adapter returned nothing" for key in self.wanted.keys() - got.keys()]
        for key in sorted(self.wanted.keys() & got.keys()):
            problems += self._compare(key, torch.as_tensor(got[key]), self.wanted[key])
        for key, value in self.expected.items():
            name = f"expected/{key}"
            if name not in got:
                problems.append(f"{name}: the adapter returned nothing")
            elif (wrong := self._differs(got[name], value)) is not None:
                problems.append(f"{name}: {wrong}")
        assert not problems, f"{self.name}\n  " + "\n  ".join(problems)

    def _compare(self, key: str, got: Tensor, want: Tensor) -> list[str]:
        if got.numel() != want.numel():
            return [f"{key}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"]
        if got.shape != want.shape and want.numel() != 1:
            return [f"{key}: shape {tuple(got.shape)}, expected {tuple(want.shape)}"]
        atol, rtol = self.tolerance(key)
        if self.spec.get("kind") == "training_step" and key.startswith("grad/") and self.dtype == torch.float32:
            atol = max(atol, BACKPROP_ROUNDING * float(want.abs().max()))
        exact = not want.is_floating_point() and not want.is_complex()
        if exact and key not in self.spec.get("tolerances", {}):
            atol = rtol = 0.0
        kind = torch.complex128 if want.is_complex() else torch.float64
        got, want = got.detach().reshape(want.shape).to(kind), want.to(kind)
        if kind is torch.float64:
            infinite = ~torch.isfinite(want)
            if not torch.equal(got[infinite], want[infinite]):
                return [f"{key}: infinities at other places"]
            got, want = got[~infinite], want[~infinite]
        if not want.numel():
            return []
        error = (got - want).abs()
        over = ~(error <= atol + rtol * want.abs())
        if not over.any():
            return []
        worst = float(error.nan_to_num(float("inf")).max())
        return [f"{key}: {int(over.sum())} of {over.numel()} beyond atol {atol:g} rtol {rtol:g}, worst {worst:.3g}"]

    def _differs(self, got: Any, want: Any, where: str = "") -> str | None:
        """Why a table entry or scalar differs, or None. Integers and strings are exact, floats within the tolerance."""
        if isinstance(got, Tensor):
            got = got.tolist()
        if isinstance(want, dict):
            missing = want.keys() - got.keys()
            if missing:
                return f"{where} lacks {sorted(missing)}"
            found = (self._differs(got[key], want[key], f"{where}.{key}") for key in want)
            return next((problem for problem in found if problem), None)
        if isinstance(want, list):
            if len(got) != len(want):
                return f"{where} has {len(got)} entries, expected {len(want)}"
            found = (self._differs(g, w, f"{where}[{i}]") for i, (g, w) in enumerate(zip(got, want)))
            return next((problem for problem in found if problem), None)
        if isinstance(want, float):
            atol, rtol = float(self.spec.get("atol") or 0), float(self.spec.get("rtol") or 0)
            return None if abs(float(got) - want) <= atol + rtol * abs(want) else f"{where} is {got}, expected {want}"
        return None if got == want else f"{where} is {got}, expected {want}"


def cases() -> list[Case]:
    """Every case below the golden folder, sorted by system and name."""
    found = (Case(path, json.loads(path.read_text())) for path in sorted(FOLDER.glob("*/*.json")))
    return list(found)


def discover() -> dict[tuple[str, str], Adapter]:
    """Import the test files that register adapters and return what they registered."""
    for file in sorted(TESTS.rglob("test_*.py")):
        if file.parent.name != "golden" and "golden.cases" in file.read_text():
            importlib.import_module(".".join(file.relative_to(TESTS.parent).with_suffix("").parts))
    return ADAPTERS
