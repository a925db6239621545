"""Which path an operation takes: the Triton kernel, or ATen.

The kernel runs on a GPU. With TRITON_INTERPRET=1 in the environment it runs on CPU tensors too, so that the same tests
check both paths:

    pytest tests/golden -k rational                       ATen
    TRITON_INTERPRET=1 pytest tests/golden -k rational    the kernel, in Triton's interpreter
"""

import functools
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
"""Whether this process runs Triton kernels in the interpreter (read once: `triton.jit` decides at decoration)."""

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def triton_problem(triton: str | None, numpy: str, *, interpreted: bool) -> str | None:
    """One line that says why these versions cannot run the kernels, or None."""
    if triton is None:
        return "triton is not installed"
    if _release(triton) < (3, 6):
        return f"triton {triton} is too old: 3.6 or newer is needed"
    if interpreted and _release(triton) < (3, 7) and _release(numpy) >= (2, 4):
        return f"the interpreter of triton {triton} cannot loop with numpy {numpy}: numpy < 2.4 or triton 3.7 is needed"
    return None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2])


def _installed() -> str | None:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return None


def problem_here(*, interpreted: bool) -> str | None:
    """`triton_problem` of the versions that are installed."""
    return triton_problem(_installed(), importlib.metadata.version("numpy"), interpreted=interpreted)


TRITON_PROBLEM = problem_here(interpreted=INTERPRETED)
"""One line that says why Triton cannot be used at all, or None."""


def why_no_triton() -> str | None:
    """One line that says why Triton kernels do not run on this machine, or None."""
    if TRITON_PROBLEM is None and not INTERPRETED and not torch.cuda.is_available():
        return "no GPU: operations take their ATen path"
    return TRITON_PROBLEM


def runs_triton(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = KERNEL_DTYPES) -> bool:
    """Whether the kernel runs for these tensors: all on a GPU (or all anywhere in the interpreter), of a `dtypes` type.

    bfloat16 stays with ATen in the interpreter, which computes it wrongly.
    """
    if TRITON_PROBLEM is not None or not (INTERPRETED or all(tensor.is_cuda for tensor in tensors)):
        return False
    known = all(tensor.dtype in dtypes for tensor in tensors if tensor.is_floating_point())
    wrong = INTERPRETED and any(tensor.dtype == torch.bfloat16 for tensor in tensors)
    return known and not wrong


Launch = TypeVar("Launch", bound=Callable[..., Any])


def on_its_gpu(launch: Launch) -> Launch:
    """`launch` with the GPU of its first argument made the current one, which is where Triton launches."""

    @functools.wraps(launch)
    def run(tensor: Tensor, *rest: Any, **named: Any) -> Any:
        with torch.cuda.device_of(tensor):
            return launch(tensor, *rest, **named)

    return cast(Launch, run)


Machine = str
"""The kind of GPU, by the first of its kind: "sm_80" (matrix units fed from registers; the consumer cards too), "sm_90"
(fed from shared memory), "sm_100" (with a memory of their own; exponentials are scarce), "gfx942" (AMD)."""


def machine_of(device: torch.device) -> Machine:
    """The machine whose tiles suit a device; tensors of the interpreter are laid out as for "sm_90"."""
    if torch.version.hip is not None:
        return "gfx942"
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")


def exporting() -> bool:
    """Whether the code is being traced for torch.export or ONNX, where an operation must be written in ATen."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()


def autocast_to(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in the dtype of the autocast region around the call, or as they are outside one (float64 stays)."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)


def dot_precision(dtype: torch.dtype) -> str:
    """How a kernel multiplies matrices: float32 as PyTorch does, TF32 where the user allows it, else to float32.

    It makes no difference to 16 bits, which always say the same, so that no kernel is compiled twice.
    """
    if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return "tf32"
    return "ieee" if torch.version.hip or INTERPRETED else "tf32x3"


def dot_precisions(word: str, *, amd: bool) -> tuple[str, ...]:
    """All that `dot_precision` can say for a type in Triton's words on a GPU; it only matters for "fp32"."""
    usual = "ieee" if amd else "tf32x3"
    return (usual, "tf32") if word == "fp32" else (usual,)
