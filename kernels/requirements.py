"""What Triton needs of a machine: versions that run the kernels, and a C compiler to start with."""

import importlib.metadata
import os
import shutil
import sysconfig
from pathlib import Path


def problem_here(*, interpreted: bool) -> str | None:
    """One line that says why Triton cannot run here, or None."""
    versions = wrong_versions(_triton(), importlib.metadata.version("numpy"), interpreted=interpreted)
    return versions if versions or interpreted else nothing_to_build_with()


def wrong_versions(triton: str | None, numpy: str, *, interpreted: bool) -> str | None:
    """One line that says why these versions cannot run the kernels, or None."""
    if triton is None:
        return "triton is not installed"
    if _release(triton) < (3, 6):
        return f"triton {triton} is too old: 3.6 or newer is needed"
    if interpreted and _release(triton) < (3, 7) and _release(numpy) >= (2, 4):
        return f"the interpreter of triton {triton} cannot loop with numpy {numpy}: numpy < 2.4 or triton 3.7 is needed"
    return None


def nothing_to_build_with() -> str | None:
    """What is missing for the small library in C that Triton compiles when it first meets a GPU, or None."""
    if not ("CC" in os.environ or shutil.which("gcc") or shutil.which("clang")):
        return "Triton finds no C compiler: install gcc, or set CC to another one"
    scheme = sysconfig.get_default_scheme()
    scheme = "posix_prefix" if scheme == "posix_local" else scheme  # as Triton does
    headers = Path(sysconfig.get_path("include", scheme))
    if not (headers / "Python.h").is_file():
        return f"Triton needs Python.h, which is not in {headers}: install Python's headers (python3-dev)"
    return None


def _triton() -> str | None:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2])
