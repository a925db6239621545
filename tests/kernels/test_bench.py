"""Everything that a comparison times computes the same, or the ratio means nothing; rows say what was left out."""

import pytest
import torch

from benchmarks.kernels import main as benchmark
from tests.kernels.harness import close
from zoo.kernels import bench
from zoo.kernels.bench import COMPARISONS, comparison, rows
from zoo.kernels.bench.attention import _written_out
from zoo.kernels.bench.comparison import Comparison, measure

LOOSE = {
    "quant_linear": 0.03,  # 8 bits
    "preprocess": 0.02,  # one step of 255, over the deviation
    "rational": 1e-3,  # coefficient gradients sum a million terms
}
APPROXIMATE = ("retrieval_head",)


@pytest.mark.parametrize("make", COMPARISONS, ids=lambda make: make.__name__)
def test_the_calls_of_a_comparison_agree(make):
    torch.manual_seed(0)
    found = make("cpu", torch.float32)
    assert found.op in found.calls
    results = {name: call() for name, call in found.calls.items()}
    if found.op in APPROXIMATE:
        return
    want = results.pop(found.op)
    for name, got in results.items():
        pairs = zip(want, got, strict=True) if isinstance(want, tuple) else [(want, got)]
        for w, g in pairs:
            if w.is_floating_point():
                close(w, g, tolerance=LOOSE.get(found.op, 1e-4), name=name)
            else:  # equally near centroids may go either way, and an iteration carries that on
                assert (w == g).float().mean() > 0.99, name


def test_a_rival_that_fails_is_left_out():
    def fails():
        raise RuntimeError("no kernel for this\nand a long tail")

    x = torch.randn(64, 64)
    calls = {"attention": lambda: x @ x, "broken": fails, "other": lambda: x @ x}
    row = measure(Comparison("attention", "toy", calls, x), "cpu", x.dtype, rounds=3, copy_gbps=None)
    assert set(row.times) == {"attention", "other"}
    assert row.left_out == {"broken": "no kernel for this"}
    assert "without broken: no kernel for this" in str(row)
    assert row.spread[0] <= row.times["attention"] <= row.spread[1]
    with pytest.raises(RuntimeError, match="no kernel"):
        measure(Comparison("broken", "toy", calls, x), "cpu", x.dtype, rounds=1, copy_gbps=None)


def test_a_rival_that_fails_while_it_is_timed_on_a_gpu_is_left_out_too(monkeypatch):
    def timed(call):
        if call() is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [1.0, 2.0, 3.0]

    monkeypatch.setattr(comparison, "time_on_gpu", timed)
    monkeypatch.setattr(comparison, "peak_megabytes", lambda call: 5.0)
    monkeypatch.setattr(comparison, "device_name", lambda device: "NVIDIA H200")
    x = torch.randn(8)
    calls = {"attention": lambda: x, "grows": lambda: None, "other": lambda: x}
    row = measure(Comparison("attention", "toy", calls, x), "cuda", x.dtype, rounds=3, copy_gbps=None)
    assert set(row.times) == set(row.memory) == {"attention", "other"}
    assert row.left_out == {"grows": "CUDA out of memory"}


def test_an_operation_of_ours_that_fails_does_not_end_the_run(monkeypatch):
    def broken(device, dtype):
        raise RuntimeError("out of resource: shared memory\nand a long tail")

    def works(device, dtype):
        x = torch.randn(8)
        return Comparison("attention", "toy", {"attention": lambda: x + 1, "other": lambda: x + 1}, x)

    monkeypatch.setattr(bench, "COMPARISONS", (broken, works))
    failed = {}
    assert [row.case for row in rows("cpu", rounds=1, failed=failed)] == ["toy"]
    assert failed == {"broken": "out of resource: shared memory"}
    with pytest.raises(RuntimeError, match="shared memory"):
        list(rows("cpu", rounds=1))


def test_rows_by_name():
    found = list(rows("cpu", only="monarch", rounds=2))
    assert [row.op for row in found] == ["monarch"]
    assert found[0].path == "aten"
    assert found[0].tflops > 0
    assert found[0].floor is None
    assert found[0].memory == {}


def test_a_name_of_no_comparison_is_a_mistake(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["kernels.py", "--only", "nothing"])
    assert benchmark() == 2
    said = capsys.readouterr()
    assert said.err.startswith("--only nothing: no comparison starts so, choose from attention")
    assert said.err.count("\n") == 1
    assert not said.out


def test_flex_attention_says_the_same_as_the_window_comparison():
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = torch.randn(3, 2, 3, 49, 32)
    bias = torch.randn(1, 3, 49, 49)
    got = flex_attention(q, k, v, score_mod=lambda score, _, head, row, column: score + bias[0, head, row, column])
    close(got, _written_out(q, k, v, bias), tolerance=1e-5)
