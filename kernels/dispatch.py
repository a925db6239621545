"""Which path an operation takes: the Triton kernel, or ATen.

The kernel runs on a GPU. With TRITON_INTERPRET=1 in the environment it runs on CPU tensors too, so that the same tests
check both paths:

    pytest tests/golden -k rational                       ATen
    TRITON_INTERPRET=1 pytest tests/golden -k rational    the kernel, in Triton's interpreter
"""

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
"""Whether this process runs Triton kernels in the interpreter (read once: `triton.jit` decides at decoration)."""

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def why_no_triton() -> str | None:
    """One line that says why Triton kernels cannot run here, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    import triton

    version = tuple(int(part) for part in triton.__version__.split("+")[0].split(".")[:2])
    if version < (3, 6):
        return f"triton {triton.__version__} is too old: 3.6 or newer is needed"
    if not INTERPRETED and not torch.cuda.is_available():
        return "no GPU"
    return None


def runs_triton(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = KERNEL_DTYPES) -> bool:
    """Whether the kernel runs for these tensors: all on a GPU (or all anywhere in the interpreter), of a `dtypes` type.

    bfloat16 stays with ATen in the interpreter, which computes it wrongly.
    """
    if why_no_triton() is not None:
        return False
    on_device = INTERPRETED or all(tensor.is_cuda for tensor in tensors)
    known = all(tensor.dtype in dtypes for tensor in tensors if tensor.is_floating_point())
    wrong = INTERPRETED and any(tensor.dtype == torch.bfloat16 for tensor in tensors)
    return on_device and known and not wrong


def exporting() -> bool:
    """Whether the code is being traced for torch.export or ONNX, where an operation must be written in ATen."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()
