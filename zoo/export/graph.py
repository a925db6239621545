"""A part of a model as a graph with a free batch size, by torch.export."""

import warnings

import torch
from torch.export import Dim, ExportedProgram

from zoo.errors import ZooError
from zoo.export.parts import Part


def trace(part: Part, *, label: str) -> ExportedProgram:
    """Record a part's operations; the first axis of every input that has the batch's length stays free.

    Raises:
        ZooError: the model does what no graph can hold, such as deciding by the values of a tensor.
    """
    batch = Dim("batch")
    size = len(part.example[0])
    shapes = tuple({0: batch} if len(tensor) == size else None for tensor in part.example)
    # Half takes *inputs, which torch.export sees as one argument
    free = shapes if len(part.inputs) == 1 and part.name == "model" else (shapes,)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(part.module, part.example, dynamic_shapes=free)
    except Exception as error:
        reason = " ".join(str(error).split("\n\n")[0].split())[:240]
        raise ZooError(
            f"{label} cannot be written as a graph of operations ({type(error).__name__}: {reason}): "
            "take --format safetensors"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program
