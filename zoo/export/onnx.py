"""ONNX: written by torch.onnx from the exported graph, run by ONNX Runtime on the processor."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import MissingDependency
from zoo.export.graph import trace
from zoo.export.parts import Part, Runner
from zoo.models.quiet import quiet

SUFFIX = ".onnx"
LARGEST = 1_800_000_000
"""Bytes of weights that fit into one file beside the graph; the format's limit is 2 GiB."""


def check_packages() -> None:
    """Whether what the format needs is installed.

    Raises:
        MissingDependency: onnx, onnxscript or onnxruntime is absent.
    """
    from importlib.util import find_spec

    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingDependency(package, "export", "export --format onnx")


def write(part: Part, path: Path, description: dict[str, Any], *, label: str) -> None:
    """Write a part; the values of `description` go into the file's metadata, as text or JSON."""
    program = trace(part, label=label)
    with unheard():
        converted = torch.onnx.export(
            program,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamo=True,
            verbose=False,
        )
        assert converted is not None
        proto = converted.model_proto
    strip(proto)
    describe(proto, description)
    save(proto, path)


def strip(proto: Any) -> None:
    """Remove what tells of the machine that wrote the file: paths and source lines."""
    for node in [*proto.graph.node, *(node for function in proto.functions for node in function.node)]:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer]:
        value.ClearField("metadata_props") if hasattr(value, "metadata_props") else None


def describe(proto: Any, description: dict[str, Any]) -> None:
    """Write names and preprocessing into the file's metadata."""
    from onnx.helper import set_model_props

    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in description.items()}
    set_model_props(proto, texts)


def save(proto: Any, path: Path) -> None:
    import onnx

    beside = proto.ByteSize() > LARGEST
    onnx.save_model(proto, path, save_as_external_data=beside, location=f"{path.name}.data" if beside else None)


def open_file(part: Part, path: Path) -> Runner:
    """The file as a function of tensors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        arrays = session.run(None, {name: np.ascontiguousarray(value.numpy()) for name, value in zip(names, inputs)})
        return tuple(torch.from_numpy(np.asarray(array)) for array in arrays)

    return run


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """The converter prints and warns on its way; what matters it raises."""
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        yield
