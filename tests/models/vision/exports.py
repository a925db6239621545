"""Exports of a whole network: its program and its ONNX file answer as it does, at another batch size too."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

BATCH = torch.export.Dim("batch", min=1, max=64)


class Logits(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).prediction


def check_program(model: nn.Module, images: Tensor) -> None:
    exported = torch.export.export(Logits(model).eval(), (images[:2],), dynamic_shapes=({0: BATCH},)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(images), model(images).prediction)


def check_onnx(model: nn.Module, images: Tensor, folder: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    program = torch.onnx.export(
        Logits(model).eval(), (images[:2],), dynamo=True, dynamic_shapes=({0: BATCH},), verbose=False
    )
    program.save(folder / "model.onnx")
    session = runtime.InferenceSession(folder / "model.onnx")
    logits = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(images).prediction, atol=1e-4, rtol=1e-3)
