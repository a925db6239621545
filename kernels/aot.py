"""Compile a Triton kernel ahead of time, without a GPU, and say what it costs the machine.

    resources = compile_ahead(kernel, {"x": "*fp32", "n": "i32"}, {"BLOCK": 1024}, target="sm_90", num_warps=4)
    assert resources.spilled == 0 and resources.fits

Works with Triton 3.6 to 3.9. The signature uses Triton's words: "*bf16", "*fp32", "*i8", "i32", "fp32", ...
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from zoo.kernels.dispatch import FUSED

SHARED_LIMITS = {"sm_80": 101_376, "sm_90": 232_448, "sm_100": 232_448}
"""Bytes of shared memory that a block may have; the compiler does not check them. What is compiled for sm_80 runs on
consumer cards too (sm_86, sm_89, sm_120), which have fewer than sm_80 itself (166,912)."""

AMD_SHARED_LIMIT = 65_536

MATRIX_INSTRUCTIONS = r"\b(?:HGMMA|QGMMA|IGMMA|HMMA|IMMA|UTC\w*MMA)\b|\bv_s?mfmac?_\w+"
ASYNC_COPIES = r"\b(?:LDGSTS|UTMALDG)\b|\bbuffer_load_\w+ .*\blds\b"


@dataclass(frozen=True)
class Resources:
    """What one compiled configuration needs.

    registers: per thread. spilled: bytes of local memory per thread (0 = nothing spilled). shared: bytes per block.
    warps: per block, after warp specialisation. matrix: matrix instructions, by name. copies: asynchronous copies from
    global to shared memory (0 = the loop is not pipelined). assembly: SASS or amdgcn text.
    """

    target: str
    registers: int
    spilled: int
    shared: int
    warps: int
    matrix: tuple[str, ...]
    copies: int
    assembly: str

    @property
    def fits(self) -> bool:
        """Whether a block of this kernel can be launched: shared memory and the register file hold it."""
        threads = self.warps * (64 if self.target.startswith("gfx") else 32)
        registers = 131_072 if self.target.startswith("gfx") else 65_536
        return self.shared <= SHARED_LIMITS.get(self.target, AMD_SHARED_LIMIT) and self.registers * threads <= registers

    def __str__(self) -> str:
        found = "+".join(self.matrix) or "none"
        return (
            f"{self.target}: {self.registers} registers, {self.spilled} B spilled, {self.shared} B shared, "
            f"{self.warps} warps, matrix instructions {found}, {self.copies} asynchronous copies"
        )


@dataclass(frozen=True)
class Configuration:
    """One configuration that a launcher can choose: what `compile_ahead` needs, under a name.

    Every `kernels/<op>/triton.py` lists its own in `configurations()`; `catalogue.py` collects them.
    matrix: it multiplies matrices, so matrix instructions must be there. main: a main shape, which must spill nothing.
    grows: constants and optional arguments that only add to what the kernel holds: this configuration stands for those
    with smaller ones, or without them. free: arguments that make no difference to it.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    matrix: bool = False
    main: bool = True
    grows: tuple[str, ...] = ()
    free: tuple[str, ...] = ()

    def stands_for(self, other: "Configuration") -> bool:
        """Whether `other` is this kernel in the same tile and dtype, with nothing larger and nothing more."""
        if self.kernel is not other.kernel or dict(self.options) != dict(other.options):
            return False
        for name in set(self.kernel.arg_names) - set(self.free):
            mine, its = (found.constants.get(name, found.signature.get(name)) for found in (self, other))
            optional = name in self.grows and its is None
            smaller = name in self.grows and isinstance(mine, int) and isinstance(its, int) and its <= mine
            known = mine == "i32" and its == 1  # to the compiler, which then needs less
            if mine != its and not (optional or smaller or known):
                return False
        return True

    def compile(self, target: str) -> Resources:
        return compile_ahead(
            self.kernel, self.signature, self.constants, target=target, aligned=self.aligned, **self.options
        )


def compile_ahead(
    kernel: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    *,
    target: str = "sm_90",
    aligned: Iterable[str] = (),
    **options: Any,
) -> Resources:
    """Compile `kernel` for `target` ("sm_80", "sm_90", "sm_100", "gfx942", ...).

    Args:
        kernel: a `triton.jit` function; wrappers by autotune or heuristics are looked through.
        signature: type of every argument that is not in `constants`.
        constants: values of the `tl.constexpr` arguments (and of arguments fixed to None).
        aligned: integer arguments (strides, sizes) that are multiples of 16, as the JIT would find out at launch;
            pointers always are. Without them the compiler gives up asynchronous copies.
        options: num_warps, num_stages, maxnreg, enable_fp_fusion ...
    Raises:
        RuntimeError: in a process that runs the interpreter (TRITON_INTERPRET=1), where nothing can be compiled.
    """
    import triton
    from triton.compiler import ASTSource

    while not hasattr(kernel, "arg_names") or hasattr(kernel, "configs"):
        kernel = kernel.fn
    if not isinstance(kernel, triton.JITFunction):
        raise RuntimeError("ahead-of-time compilation needs a process without TRITON_INTERPRET")
    names = kernel.arg_names
    types = {name: "constexpr" if name in constants else signature[name] for name in names}
    marked = {name for name in names if types[name].startswith("*")} | set(aligned)
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if name in marked and types[name] != "constexpr"
    }
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, types, constexprs=values, attrs=attributes)
    options = {**FUSED, **options}
    compiled = triton.compile(source, target=_gpu_target(target), options=options)
    read = _read_amd if target.startswith("gfx") else _read_nvidia
    return read(target, compiled)


def _gpu_target(name: str) -> Any:
    from triton.backends.compiler import GPUTarget

    if name.startswith("gfx"):
        return GPUTarget("hip", name, 64 if name.startswith("gfx9") else 32)
    return GPUTarget("cuda", int(name.removeprefix("sm_")), 32)


def _read_nvidia(target: str, compiled: Any) -> Resources:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _output(_nvidia_tool("cuobjdump"), "--dump-resource-usage", file.name)
        sass = _output(_nvidia_tool("nvdisasm"), "-c", file.name)
    stack, local = _number(usage, r"STACK:(\d+)"), _number(usage, r"LOCAL:(\d+)")
    return _resources(target, compiled, _number(usage, r"REG:(\d+)"), stack + local, sass)


def _read_amd(target: str, compiled: Any) -> Resources:
    text = compiled.asm["amdgcn"]
    spilled = 4 * _number(text, r"\.vgpr_spill_count:\s*(\d+)")
    return _resources(target, compiled, _number(text, r"\.vgpr_count:\s*(\d+)"), spilled, text)


def _resources(target: str, compiled: Any, registers: int, spilled: int, assembly: str) -> Resources:
    return Resources(
        target=target,
        registers=registers,
        spilled=spilled,
        shared=int(compiled.metadata.shared),
        warps=int(compiled.metadata.num_warps),
        matrix=tuple(sorted(set(re.findall(MATRIX_INSTRUCTIONS, assembly)))),
        copies=len(re.findall(ASYNC_COPIES, assembly)),
        assembly=assembly,
    )


def _number(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@cache
def _nvidia_tool(name: str) -> str:
    """Path of a binary utility that ships inside the triton package."""
    import triton

    return str(getattr(triton.knobs.nvidia, name).path)
