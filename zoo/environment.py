"""What a run was made with: versions, processor and devices."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

PACKAGES = (
    "torch", "torchvision", "triton", "pytorch-lightning", "torchmetrics", "timm", "open_clip_torch", "hydra-core",
    "safetensors", "scikit-learn", "numpy", "onnx", "onnxruntime",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """Installed versions by distribution name; None where a package is absent."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {"bottleneck-zoo": version("bottleneck-zoo"), "python": platform.python_version()} | {
        name: version(name) for name in PACKAGES
    }


def environment() -> dict[str, Any]:
    """Versions, platform, cores and, if torch is loaded, the accelerators."""
    devices: list[str] = []
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": devices,
    }
