"""Which path an operation takes, and how it multiplies."""

from types import SimpleNamespace

import pytest
import torch

from tests.kernels.harness import run_interpreted
from zoo.kernels.attention import choice
from zoo.kernels.attention.arguments import sizes
from zoo.kernels.dispatch import dot_precision

TILES = choice.Tiles(64, 64, 4, 1)


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "tf32"),
        ("torch.backends.fp32_precision = 'tf32'", "tf32"),
        ("torch.set_float32_matmul_precision('high')", "tf32"),
        ("torch.backends.cuda.matmul.fp32_precision = 'ieee'", "ieee"),
        ("pass", "ieee"),
    ],
)
def test_every_setting_of_tf32_is_understood(setting, word):
    """PyTorch's older settings raise when they are read after the newer ones were used."""
    code = (
        f"import torch\n{setting}\nfrom zoo.kernels.dispatch import dot_precision\nprint(dot_precision(torch.float32))"
    )
    assert run_interpreted(code).split() == [word]


@pytest.mark.parametrize(("name", "word"), [("gfx942:sramecc+", "tf32"), ("gfx950", "ieee"), ("gfx90a", "ieee")])
def test_tf32_is_not_asked_of_amd_machines_without_it(name, word, monkeypatch):
    """Triton refuses the word there, for 16 bits too."""
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(gcnArchName=name))
    q = torch.zeros(1, 1, 4, 64, dtype=torch.bfloat16)
    assert sizes(q, q, TILES)["PRECISION"] == word
    assert dot_precision(torch.float32) == "ieee"
