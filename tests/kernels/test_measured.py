"""Where attention has two good paths on a GPU, what was measured there decides."""

from types import SimpleNamespace

import pytest
import torch

from zoo.kernels import measured
from zoo.kernels.attention import attention
from zoo.kernels.measured import Case, cases, kernel_pays, nearest, write

VIT = {"batch": 64, "heads": 12, "kv_heads": 12, "q_len": 197, "kv_len": 197, "head_dim": 64}
LONG = {"batch": 4, "heads": 32, "kv_heads": 32, "q_len": 4096, "kv_len": 4096, "head_dim": 64, "causal": 1}
TABLE = [
    Case("H200", "attention", "bfloat16", VIT | {"causal": 0, "backward": 0}, 1.31),
    Case("H200", "attention", "bfloat16", LONG | {"backward": 0}, 0.72),
    Case("H200", "attention", "bfloat16", LONG | {"causal": 0, "backward": 0}, 0.7),
    Case("H200", "attention", "bfloat16", LONG | {"causal": 0, "backward": 1}, 0.8),
]


@pytest.fixture
def h200(monkeypatch, tmp_path):
    """A machine with that GPU, and what was measured on it."""
    monkeypatch.setattr(measured, "FILE", tmp_path / "measured.csv")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "H200")
    write(measured.FILE, TABLE)
    cases.cache_clear()
    return SimpleNamespace(is_cuda=True, device=torch.device("cuda"), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("change", "pays"),
    [
        ({}, True),
        ({"batch": 32, "q_len": 257, "kv_len": 257}, True),
        ({"q_len": 8192, "kv_len": 8192, "batch": 1}, False),
        ({"causal": 1}, False),
        ({"backward": 1}, False),
        ({"batch": 0}, False),
    ],
)
def test_the_nearest_case_decides(h200, change, pays):
    assert cases(measured.FILE) == tuple(TABLE)
    assert kernel_pays("attention", h200, VIT | change) == pays


def test_what_was_not_measured_takes_pytorch(h200, monkeypatch):
    h200.dtype = torch.float16
    assert not kernel_pays("attention", h200, VIT)
    assert nearest(TABLE, "A100", "attention", "bfloat16", VIT) is None
    assert "1 of 4" in measured.said_of("H200")
    assert "not measured" in measured.said_of("A100")
    with measured.kernels_always():
        assert kernel_pays("attention", h200, VIT)
    assert not kernel_pays("attention", h200, VIT)


def test_a_new_table_keeps_other_devices(h200):
    write(measured.FILE, [Case("A100", "attention", "bfloat16", VIT, 0.9)])
    cases.cache_clear()
    assert [case.device for case in cases(measured.FILE)] == ["H200"] * 4 + ["A100"]


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({}, True),
        ({"causal": True}, True),
        ({"bias": torch.zeros(9, 9)}, False),
        ({"window": (3, 3)}, False),
        ({"return_lse": True}, False),
        ({"key_lengths": torch.tensor([4])}, False),
    ],
)
def test_only_calls_that_pytorch_can_do_as_well_are_asked_about(more, asked, monkeypatch):
    took, questions = [], []
    monkeypatch.setattr("zoo.kernels.attention._kernel_runs_on", lambda *_: True)
    monkeypatch.setattr("zoo.kernels.attention._run_kernel", lambda *_: took.append(1))
    monkeypatch.setattr("zoo.kernels.attention.kernel_pays", lambda op, q, sizes: questions.append(sizes))
    attention(*torch.randn(3, 1, 2, 9, 16), **more)
    assert bool(questions) == asked
    assert bool(took) != asked
    if asked:
        same = dict.fromkeys(("heads", "kv_heads"), 2) | dict.fromkeys(("q_len", "kv_len"), 9)
        assert questions == [{"batch": 1, **same, "head_dim": 16, "causal": int("causal" in more), "backward": 0}]
