"""`doctor`: what this machine can run, and what stands in the way."""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

ABOUT = "Show versions, devices, which kernels run where, free disk, and what is wrong."
EXAMPLES = """
python -m zoo doctor
python -m zoo doctor --json
"""
OPTIONAL = {
    "onnx": "export", "onnxscript": "export", "onnxruntime": "export", "nicegui": "demo", "tensorboard": "tracking",
    "ipykernel": "notebook", "nbclient": "notebook",
}  # fmt: skip
ALTERED = ("2.6.2", "2.6.3")
LOW_DISK = 2 * 1024**3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(args: argparse.Namespace) -> int:
    from zoo.errors import CHECK_FAILED, DONE
    from zoo.terminal import print_json

    found = examine()
    if args.json:
        print_json(found)
    else:
        _print(found)
    return CHECK_FAILED if found["problems"] else DONE


def examine() -> dict[str, Any]:
    """Everything that is printed, as plain values."""
    import torch

    from zoo.checkpoints import offline
    from zoo.data.paths import zoo_home
    from zoo.environment import environment

    found: dict[str, Any] = environment()
    home = zoo_home()
    found["devices"] = [f"cpu ({torch.get_num_threads()} threads)", *_accelerators()]
    found["kernels"] = _kernels()
    found["disk_free"] = {str(place): _free(place) for place in (Path.cwd(), home)}
    found["cache"] = {"folder": str(home), "bytes": _size(home), "writable": _writable(home)}
    found["optional"] = {name: {"installed": _installed(name), "extra": extra} for name, extra in OPTIONAL.items()}
    found["offline"] = offline()
    found["problems"] = _problems(found)
    return found


def _accelerators() -> list[str]:
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} {device.name}, sm_{device.major}{device.minor}, {device.total_memory >> 20:,} MiB")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _kernels() -> dict[str, dict[str, str | None]]:
    """Operation -> the path it takes for tensors on the CPU and on a GPU (None without one)."""
    import torch

    import zoo.kernels
    from zoo.kernels.dispatch import INTERPRETED, TRITON_PROBLEM
    from zoo.kernels.measured import OPERATIONS, said_of

    without = f"ATen ({TRITON_PROBLEM})"
    cpu = (without if TRITON_PROBLEM else "Triton's interpreter") if INTERPRETED else "ATen"
    gpu = by_case = None
    if torch.cuda.is_available():
        gpu = without if TRITON_PROBLEM else "Triton"
        by_case = without if TRITON_PROBLEM else said_of(torch.cuda.get_device_name())
    folders = (folder for place in zoo.kernels.__path__ for folder in sorted(Path(place).iterdir()))
    named = (folder.name for folder in folders if (folder / "reference.py").is_file())
    return {name: {"cpu": cpu, "gpu": by_case if name in OPERATIONS else gpu} for name in named}


def _installed(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _nearest(place: Path) -> Path:
    """The place itself or the closest folder above that exists."""
    return next(path for path in (place, *place.absolute().parents) if path.exists())


def _free(place: Path) -> int:
    return shutil.disk_usage(_nearest(place)).free


def _writable(place: Path) -> bool:
    nearest = _nearest(place)
    return nearest.is_dir() and os.access(nearest, os.W_OK)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def _problems(found: dict[str, Any]) -> list[str]:
    """One line for each thing that will get in the way, with what to do."""
    versions = found["versions"]
    problems = []
    if versions["pytorch-lightning"] in ALTERED:
        problems.append(
            f"pytorch-lightning {versions['pytorch-lightning']} was altered by a third party: install another"
        )
    if not found["cache"]["writable"]:
        problems.append(f"the cache folder {found['cache']['folder']} cannot be written: set ZOO_HOME to another one")
    problems += [
        f"{place}: only {free / 1024**2:,.0f} MiB are free: make room, or set ZOO_HOME and output_dir elsewhere"
        for place, free in found["disk_free"].items()
        if free < LOW_DISK
    ]
    return problems


def _print(found: dict[str, Any]) -> None:
    from zoo.terminal import print_table

    print(f"platform  {found['platform']}, {found['cores']} cores")
    for device in found["devices"]:
        print(f"device    {device}")
    print(f"cache     {found['cache']['folder']}  {found['cache']['bytes'] / 1024**2:,.1f} MiB")
    for place, free in found["disk_free"].items():
        print(f"free      {place}  {free / 1024**3:,.1f} GiB")
    print(f"offline   {'yes' if found['offline'] else 'no'}")
    print()
    print_table(["package", "version"], list(found["versions"].items()))
    print()
    rows = [
        (name, o["installed"], f"pip install 'bottleneck-zoo[{o['extra']}]'") for name, o in found["optional"].items()
    ]
    print_table(["optional", "version", "comes with"], rows)
    if found["kernels"]:
        print()
        rows = [(name, paths["cpu"], paths["gpu"]) for name, paths in found["kernels"].items()]
        print_table(["kernel", "on the CPU", "on a GPU"], rows)
    print()
    print("\n".join(f"problem   {line}" for line in found["problems"]) or "nothing is wrong")
