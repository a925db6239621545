"""Which path an operation takes: the Triton kernel, or ATen.

The kernel runs on a GPU. With TRITON_INTERPRET=1 in the environment it runs on CPU tensors too, so that the same tests
check both paths:

    pytest tests/golden -k rational                       ATen
    TRITON_INTERPRET=1 pytest tests/golden -k rational    the kernel, in Triton's interpreter
"""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from zoo.kernels.requirements import problem_here

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
"""Whether this process runs Triton kernels in the interpreter (read once: `triton.jit` decides at decoration)."""

SWITCH = os.environ.get("ZOO_KERNELS", "")
"""What the user wants of the kernels: "never", "always", or where they pay (see measured.py)."""

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _triton_problem() -> str | None:
    if SWITCH not in ("", "always"):
        return f"ZOO_KERNELS={SWITCH}" + ("" if SWITCH == "never" else ", which is neither always nor never")
    return problem_here(interpreted=INTERPRETED)


TRITON_PROBLEM = _triton_problem()
"""One line that says why Triton cannot be used at all, or None."""


def why_no_triton() -> str | None:
    """One line that says why Triton kernels do not run on this machine, or None."""
    if not INTERPRETED and not torch.cuda.is_available():
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


FUSED = {"enable_fp_fusion": True}
"""What every launch says: a product and a sum behind it may be one instruction. Unsaid, Triton 3.9 warns, and 3.10 will
not do so, with which the table of compiled kernels would no longer be that of the launches."""

Machine = str
"""The kind of GPU, by the first of its kind: "sm_80" (matrix units fed from registers; the consumer cards too), "sm_90"
(fed from shared memory), "sm_100" (with a memory of their own; exponentials are scarce), "gfx942" (AMD)."""


def machine_of(device: torch.device) -> Machine:
    """The machine whose tiles suit a device; tensors of the interpreter are laid out as for "sm_90"."""
    if torch.version.hip is not None:
        return "gfx942"
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")


def processors(device: torch.device) -> int:
    """How many programs a device works on at once, at the least; the interpreter stands for an H100."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def exporting() -> bool:
    """Whether the code is being traced for torch.export or ONNX, where an operation must be written in ATen."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()


def traced() -> bool:
    """Whether the code is being traced for a compiler or an export, so that tensors have no values."""
    return exporting() or torch.compiler.is_compiling()


def autocast_to(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in the dtype of the autocast region around the call, or as they are outside one (float64 stays)."""
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)


def allows_tf32() -> bool:
    """Whether the user lets float32 matrices be multiplied in TF32, and the current GPU can: of AMD's, gfx942 alone.

    Of PyTorch's three settings the one that may always be read: the older two raise once the newer was used.
    """
    return torch.backends.cuda.matmul.fp32_precision == "tf32" and has_tf32()


def has_tf32() -> bool:
    """Whether the current GPU multiplies in TF32; Triton refuses the word elsewhere, whatever the dtype."""
    if torch.version.hip is None or not torch.cuda.is_available():
        return True
    return torch.cuda.get_device_properties().gcnArchName.startswith("gfx942")


def dot_precision(dtype: torch.dtype) -> str:
    """How a kernel multiplies matrices: float32 as PyTorch does, TF32 where the user allows it, else to float32.

    It makes no difference to 16 bits, which always say the same, so that no kernel is compiled twice.
    """
    if dtype == torch.float32 and allows_tf32():
        return "tf32"
    return "ieee" if torch.version.hip or INTERPRETED else "tf32x3"


def dot_precisions(word: str, *, amd: bool) -> tuple[str, ...]:
    """All that `dot_precision` can say for a type in Triton's words on a GPU; it only matters for "fp32"."""
    usual = "ieee" if amd else "tf32x3"
    return (usual, "tf32") if word == "fp32" else (usual,)
