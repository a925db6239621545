"""8-bit ONNX files: weights per channel and activations with ranges seen on real training images (static QDQ)."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.export.onnx import describe, save, strip, unheard
from zoo.export.parts import Part, run_parts

OPERATIONS = ["Conv", "Gemm", "MatMul"]


def quantize_file(path: Path, part: Part, feeds: Sequence[tuple[Tensor, ...]], description: dict[str, Any]) -> None:
    """Replace a float ONNX file by its 8-bit form.

    feeds: the part's inputs, batches of them, from which the ranges of the activations are read.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, unheard():
        prepared, changed = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            changed,
            _Feeds(part.inputs, feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=OPERATIONS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        proto = onnx.load(changed)
    strip(proto)
    describe(proto, description)
    save(proto, path)


def calibration(parts: Sequence[Part], images: Tensor, *, batch_size: int = 32) -> dict[str, list[tuple[Tensor, ...]]]:
    """What each part is fed with when the model sees these images, by the part's name."""
    feeds: dict[str, list[tuple[Tensor, ...]]] = {part.name: [] for part in parts}
    for chunk in images.split(batch_size):
        values = run_parts(parts, chunk)
        for part in parts:
            feeds[part.name].append(tuple(values[name] for name in part.inputs))
    return feeds


class _Feeds:
    """A CalibrationDataReader."""

    def __init__(self, names: tuple[str, ...], feeds: Sequence[tuple[Tensor, ...]]):
        self.rows: Iterator[Any] = iter({name: tensor.numpy() for name, tensor in zip(names, feed)} for feed in feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.rows, None)
