"""PT2: PyTorch's own file of an exported graph, for `torch.export.load(path).module()` without the zoo."""

import json
from pathlib import Path
from typing import Any

import torch

from zoo.export.graph import trace
from zoo.export.parts import Part, Runner

SUFFIX = ".pt2"


def write(part: Part, path: Path, description: dict[str, Any], *, label: str) -> None:
    """Write a part; `description` lies in the file too, as zoo.json."""
    torch.export.save(trace(part, label=label), path, extra_files={"zoo.json": json.dumps(description)})


def open_file(part: Part, path: Path) -> Runner:
    """The file as a function of tensors."""
    module: Runner = torch.export.load(path).module()
    return module
