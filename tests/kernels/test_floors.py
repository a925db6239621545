"""The cost model: parity with the table, monotony, floors below everything, errors."""

import subprocess
import sys

import pytest

from tests.golden.cases import Case, adapter, cases
from zoo.kernels.floors import DEVICES, OPERATIONS, AttentionShape, buffer_elements, cost, io_bytes, passes


@adapter("io_model", "attention_io_model")
def attention_io_model(case: Case) -> dict:
    """Tiles in names are the same in every case, whatever its own; rates, of which nothing is said, have both."""
    a = case.arguments
    tile, rates = (a["tile_m"], a["tile_n"]), (a["tensor_flops_per_us"], a["hbm_bytes_per_us"], a["exp_per_us"])
    rows = []
    for arguments in a["rows"]:
        shape = AttentionShape(**arguments)
        rows.append(
            {
                "flops_fwd": shape.flops,
                "flops_bwd": shape.flops * 5 // 2,
                "exp_count": shape.pairs,
                "bytes_floor_fwd": shape.floor,
                "bytes_tile_requests_fwd_bm128_bn64": shape.tile_requests(*tile),
                "bytes_floor_bwd": shape.floor_backward,
                "bytes_unfused_fwd": shape.unfused,
                **dict.fromkeys(("t_us_tensor_790", f"t_us_tensor_{rates[0] / 1e6:.0f}"), shape.flops / rates[0]),
                **dict.fromkeys(("t_us_hbm_4300", f"t_us_hbm_{rates[1] / 1e3:.0f}"), shape.floor / rates[1]),
                "t_us_exp_h200": shape.pairs / rates[2],
            }
        )
    theory = []
    for point in a["theory"]:
        n, d, sram = point["N"], point["d"], point["M"]
        floor = 4 * n * d
        moved = io_bytes(n, d, sram, e=1, mode="theory") - floor
        theory.append({"regime": "large" if sram >= d * d else "small", "elements": moved, "floor_elements": floor})
    return {"expected/rows": rows, "expected/theory": theory}


def test_names_are_the_same_for_other_tiles_and_rates():
    found = next(case for case in cases() if case.system == "io_model")
    own = found.spec["arguments"] | {"tile_m": 64, "tile_n": 32, "hbm_bytes_per_us": 1e6, "tensor_flops_per_us": 1e8}
    row = attention_io_model(Case(found.path, found.spec | {"arguments": own}))["expected/rows"][0]
    known, name = found.expected["rows"][0], "bytes_tile_requests_fwd_bm128_bn64"
    assert row.keys() >= known.keys()
    assert row[name] > known[name]


def test_theory_falls_with_memory_and_is_continuous():
    moved = [io_bytes(4096, 64, sram, mode="theory") for sram in (256, 1024, 4095, 4096, 8192, 100_000)]
    assert moved == sorted(moved, reverse=True)
    assert moved[2] == pytest.approx(moved[3], rel=1e-3)
    assert io_bytes(4096, 64, 50_000, mode="tile") >= 2 * 4 * 4096 * 64


def test_attention_is_told_what_its_core_must_move():
    """4 N d + N^2 d^2 / M elements at the 116,224 of 16 bits that an H200's core holds, and never below the tensors."""
    shapes = {"batch": 1, "heads": 16, "q_len": 16384, "kv_len": 16384, "head_dim": 128}
    found = cost("attention", shapes)
    assert found.on_chip_bytes == pytest.approx(2 * 16 * (4 * 16384 * 128 + 16384**2 * 128**2 / 116_224))
    assert cost("attention", shapes, device="a100").on_chip_bytes > found.on_chip_bytes > found.bytes
    assert cost("attention", shapes | {"causal": 1}).on_chip_bytes < found.on_chip_bytes
    assert cost("attention", shapes | {"backward": 1}).on_chip_bytes >= cost("attention", shapes).bytes
    assert cost("rational", {"values": 100}).on_chip_bytes == cost("rational", {"values": 100}).bytes


def test_modes_of_the_memory_model():
    moved = {mode: io_bytes(4096, 64, 50_000, mode=mode) for mode in ("floor", "theory", "tile", "unfused")}
    assert moved["floor"] == 2 * 4 * 4096 * 64 + 4 * 4096
    assert moved["unfused"] == 2 * 4 * 4096 * 64 + 4 * 2 * 4096**2
    assert moved["floor"] < moved["theory"] < moved["tile"] < moved["unfused"]


def test_passes():
    assert [passes(name) for name in ("three_pass", "local_max", "running_max")] == [3, 2, 1]
    assert buffer_elements("running_max", 197) == 0
    assert buffer_elements("three_pass", 197) == 197
    with pytest.raises(ValueError, match="choose one of"):
        passes("two")


SHAPES = {
    "attention": {"batch": 64, "heads": 12, "q_len": 197, "kv_len": 197, "head_dim": 64},
    "fftconv": {"batch": 4, "channels": 64, "length": 1024},
    "kmeans": {"points": 1_000_000, "clusters": 1024, "features": 128},
    "linear_attention": {"heads": 768, "tokens": 196, "channels": 64, "values": 64},
    "max_similarity": {"batch": 64, "positions": 196, "features": 512, "concepts": 312},
    "monarch": {"batch": 1024, "k": 32, "q": 32, "p": 32, "l": 32, "s": 32, "r": 32},
    "preprocess": {"batch": 64, "height": 375, "width": 500, "size": 224},
    "quant_linear": {"rows": 197, "inputs": 768, "outputs": 3072},
    "rational": {"values": 1 << 24},
    "retrieval_head": {"tokens": 1, "features": 512, "clusters": 8016, "probes": 256, "rows_per_cluster": 16},
    "taylor_attention": {"heads": 48, "tokens": 4096, "channels": 16, "values": 64, "causal": 1},
}


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_has_a_floor(op):
    for device, machine in DEVICES.items():
        found = cost(op, SHAPES[op], "bfloat16", device)
        assert found.seconds >= found.bytes / machine.bandwidth > 0
        assert found.bound in ("arithmetic", "bandwidth", "exponentials")
    assert cost(op, SHAPES[op], "float32").seconds >= cost(op, SHAPES[op], "bfloat16").seconds


COUNTED_BY_HAND = [
    ("rational", {"values": 100}, 100 * 20, 100 * (2 + 2)),  # read x, write y
    ("rational", {"values": 100, "backward": 1}, 100 * 60, 100 * (2 + 2 + 2)),  # read x and dy, write dx
    # 6 rows of 4 features against 5 concepts; scores and places are 4 bytes each
    ("max_similarity", {"batch": 2, "positions": 3, "features": 4, "concepts": 5}, 6 * 5 * 4 * 2, (24 + 20) * 2 + 80),
    # half as high: 4 taps; as wide: 2 taps; 16 pixels of 3 channels from 32
    ("preprocess", {"batch": 1, "height": 8, "width": 4, "size": 4}, 48 * 4 * 2 * 2, 32 * 3 + 48 * 2),
    # enlarging: 2 taps either way
    ("preprocess", {"batch": 2, "height": 3, "width": 2, "size": 4}, 2 * 48 * 2 * 2 * 2, 2 * (6 * 3 + 48 * 2)),
]


@pytest.mark.parametrize(("op", "shapes", "flops", "moved"), COUNTED_BY_HAND)
def test_counts_by_hand_of_small_shapes_in_bfloat16(op, shapes, flops, moved):
    found = cost(op, shapes, "bfloat16")
    assert (found.flops, found.bytes) == (flops, moved)


def test_figures_of_the_literature():
    assert cost("attention", SHAPES["attention"]).seconds == pytest.approx(18.2e-6, rel=0.01)
    assert cost("attention", SHAPES["attention"]).bound == "bandwidth"
    assert cost("kmeans", SHAPES["kmeans"]).flops == pytest.approx(0.27e12, rel=0.03)


def test_the_package_offers_the_cost_without_torch():
    code = (
        "import sys\n"
        "from zoo import kernels\n"
        "print(kernels.cost('rational', {'values': 100}).bytes, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["400", "False"]


def test_taylor_attention_costs_the_cheaper_of_its_two_forms():
    def flops(tokens: int, causal: int = 0) -> float:
        shapes = {"heads": 1, "tokens": tokens, "channels": 16, "values": 64, "causal": causal}
        return cost("taylor_attention", shapes).flops

    assert flops(100) == 2 * 100**2 * 80
    assert flops(8000) == 2 * flops(4000)
    assert flops(100, 1) < flops(100)


def test_errors():
    with pytest.raises(ValueError, match="unknown operation 'atention'"):
        cost("atention", {})
    with pytest.raises(ValueError, match="needs the size 'points'"):
        cost("kmeans", {})
    with pytest.raises(ValueError, match="unknown device"):
        cost("rational", {"values": 1}, device="tpu")
