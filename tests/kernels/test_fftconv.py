"""FFT convolution: parity, direct convolution, causality, gradients, registration, export, resources."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.cases import Case, adapter
from tests.kernels.harness import check_compiled, check_dynamic, check_exported, close, interpreter_test
from zoo.kernels.fftconv import aten, fftconv, reference

test_interpreter = interpreter_test("interpret_fftconv.py")


@adapter("fftconv", "fftconv", repeats=("batch", "channels", "length"))
def fftconv_case(case: Case) -> dict:
    given = {name: case.input[name].requires_grad_() for name in ("u", "k", "in_gate", "out_gate")}
    u, k, dy, size = given["u"], given["k"], case.input["dy"], case.arguments["fft_size"]
    y = fftconv(u, k, fft_size=size)
    gated = fftconv(u, k, fft_size=size, in_gate=given["in_gate"], out_gate=given["out_gate"])
    row = F.pad(u[0, 0].detach().double(), (0, size - u.shape[2]))
    stages = reference.monarch_dft(row, case.arguments["n1"], case.arguments["n2"])
    result = {
        "output/y": y,
        "output/y_gated": gated,
        "output/y_partial": fftconv(u, k, taps=case.arguments["partial_keep"]),
        "output/y_freq_sparse": fftconv(u, k, fft_size=2 * u.shape[2], frequencies=case.arguments["freq_keep"] // 2),
        "output/monarch_stage1": torch.view_as_real(stages[0]),
        "output/monarch_stage2": torch.view_as_real(stages[1]),
    }
    result |= case.gradients((y * dy).sum(), {"grad/u": u, "grad/k": k})
    names = {"grad/u_gated": "u", "grad/k_gated": "k", "grad/in_gate": "in_gate", "grad/out_gate": "out_gate"}
    return result | case.gradients((gated * dy).sum(), {key: given[name] for key, name in names.items()})


@adapter("flashfftconv", "gated_conv", repeats=("seq_len",))
def gated_conv(case: Case) -> dict:
    given = {name: case.input[name].requires_grad_() for name in ("u", "k", "in_gate", "out_gate")}
    size = case.arguments["fft_size"]
    y = fftconv(given["u"], given["k"], fft_size=size, in_gate=given["in_gate"], out_gate=given["out_gate"])
    return {"output/y": y, **case.gradients(y.sum(), {f"grad/{name}": value for name, value in given.items()})}


@adapter("flashfftconv", "sparse_convs", repeats=("seq_len",))
def sparse_convs(case: Case) -> dict:
    x, k, arguments = case.input["x"], case.input["k"], case.arguments
    return {
        "output/full_causal": fftconv(x, k),
        "output/partial": fftconv(x, k, taps=arguments["n_partial"]),
        "output/frequency_sparse": fftconv(x, k, fft_size=arguments["fft_size"], frequencies=arguments["n_freq"] // 2),
    }


@adapter("flashfftconv", "block_fft", repeats=("N",))
def block_fft(case: Case) -> dict:
    x = torch.view_as_complex(case.input["x_ri"])
    learned = {
        int(name.split("_")[2]): torch.view_as_complex(value)
        for name, value in case.input.items()
        if name.startswith("learned_dft_")
    }
    largest = case.arguments["max_m"]
    return {
        "output/fft_ri": torch.view_as_real(reference.block_dft(x, largest)),
        "output/learned_fft_ri": torch.view_as_real(reference.block_dft(x, largest, learned)),
    }


def inputs(length=37, taps=37, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(2, 3, length, dtype=dtype), torch.randn(3, taps, dtype=dtype)


@pytest.mark.parametrize(("length", "taps"), [(37, 37), (1, 1), (64, 5), (5, 64)])
def test_equals_the_direct_convolution(length, taps):
    u, k = inputs(length, taps)
    want = F.conv1d(F.pad(u, (taps - 1, 0)), k.flip(1)[:, None], groups=3)
    close(fftconv(u, k), want)
    close(fftconv(u, k, fft_size=128), want)
    close(torch.ops.zoo.fftconv(u, k, None, None, 256), want)
    close(reference.fftconv(u, k, 128), want)


def test_delta_shift_and_causality():
    u, _ = inputs()
    delta = torch.zeros(3, 37)
    delta[:, 2] = 1
    close(fftconv(u, delta)[..., 2:], u[..., :-2], tolerance=1e-6)
    close(fftconv(u, delta, fft_size=37), u.roll(2, -1), tolerance=1e-6)
    _, k = inputs()
    changed = u.clone()
    changed[..., 20] += 100
    close(fftconv(changed, k)[..., :20], fftconv(u, k)[..., :20], tolerance=2e-5)


@pytest.mark.parametrize("tile", [1, 100, 300])
def test_tiles_equal_the_whole(monkeypatch, tile):
    """With a gradient asked for nothing is tiled."""
    u, k = inputs()
    gates = {"in_gate": torch.randn(3, 1), "out_gate": torch.randn_like(u)}
    whole = fftconv(u, k.clone().requires_grad_(), **gates)
    assert whole.requires_grad
    monkeypatch.setattr(aten, "TILE", tile)
    close(fftconv(u, k, **gates), whole, tolerance=1e-6)


def test_dft_stages():
    x = torch.randn(64, dtype=torch.float64)
    _, stages = reference.monarch_dft(x, 16, 4)
    close(torch.view_as_real(stages.t().flatten()), torch.view_as_real(torch.fft.fft(x)))


def test_gradients():
    u, k = (value.requires_grad_() for value in inputs(7, 5, torch.float64))
    gate = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, k, g: fftconv(u, k, in_gate=g, out_gate=g, frequencies=4), (u, k, gate))
    assert torch.autograd.gradcheck(lambda u, k: torch.ops.zoo.fftconv(u, k, None, None, 9), (u, k))
    assert torch.autograd.gradcheck(lambda u, k: reference.fftconv(u, k, 9), (u, k))


@pytest.mark.parametrize("gated", [True, False])
def test_operators_are_registered_soundly(gated):
    u, k = inputs(dtype=torch.float64)
    gates = [torch.randn_like(u[:1]).requires_grad_(), torch.randn_like(u).requires_grad_()] if gated else [None, None]
    torch.library.opcheck(torch.ops.zoo.fftconv.default, (u.requires_grad_(), k.requires_grad_(), *gates, 128))
    plain = [value if value is None else value.detach() for value in (torch.randn_like(u), u, k, *gates)]
    torch.library.opcheck(torch.ops.zoo.fftconv_backward.default, (*plain, 128))


def test_gradients_of_the_operator():
    u, k = (value[:, :2].requires_grad_() for value in inputs(dtype=torch.float64))
    gates = [torch.randn_like(u[:1, :, :1]).requires_grad_(), torch.randn_like(u).requires_grad_()]
    assert torch.autograd.gradcheck(lambda *x: torch.ops.zoo.fftconv(*x, 64), (u, k[:2], *gates), fast_mode=True)


@pytest.mark.parametrize("length", [1, 37, 300])
def test_bfloat16_forward_and_backward(length):
    """Gradients of bfloat16 signals and gates are those of float32, rounded; also for odd lengths."""
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, length), torch.randn(3, length) / length**0.5]
    exact += [torch.randn(2, 3, length), torch.randn(1, 3, 1)]
    low = [value.bfloat16() for value in exact]
    results = []
    for values in ([value.float() for value in low], low):
        u, k, a, b = (value.requires_grad_() for value in values)
        y = torch.ops.zoo.fftconv(u, k, a, b, max(2, 2 * length))
        results.append([y, *torch.autograd.grad(y.float().square().sum(), (u, k, a, b))])
    for got, want in zip(results[1], results[0]):
        assert got.dtype == torch.bfloat16
        close(got.float() / want.abs().max(), want / want.abs().max(), tolerance=2e-2)


def test_low_precision_compile_and_export():
    u, k = inputs()
    assert fftconv(u.bfloat16(), k).dtype == torch.bfloat16
    check_compiled(fftconv, u, k)
    check_dynamic(fftconv, (u, k), (torch.randn(5, 3, 37), k))
    check_exported(fftconv, u, k)


@pytest.mark.parametrize("shape", [(0, 3, 37), (2, 0, 5)], ids=str)
def test_no_rows(shape):
    u, k = torch.randn(shape, requires_grad=True), torch.randn(shape[1], 5, requires_grad=True)
    y = fftconv(u, k, out_gate=torch.randn(shape))
    assert y.shape == u.shape
    du, dk = torch.autograd.grad(y.sum(), (u, k))
    assert not du.any()
    assert not dk.any()
    assert fftconv(u.detach(), k.detach()).shape == u.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_result_has_the_dtype_of_the_signal(dtype):
    """Also where a gate is wider, and under autocast."""
    u, k = inputs(dtype=torch.float32)
    gate = torch.randn_like(u)
    assert fftconv(u.to(dtype), k, out_gate=gate).dtype == dtype
    assert fftconv(u.to(dtype), k.requires_grad_(), in_gate=gate).dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert fftconv(u.to(dtype), k).dtype == dtype


def test_errors():
    u, k = inputs()
    with pytest.raises(ValueError, match="expected"):
        fftconv(u, k[:2])
    with pytest.raises(ValueError, match="below the length 37"):
        fftconv(u, k, fft_size=36)
    with pytest.raises(ValueError, match=r"0 taps of k \(3, 0\), expected 1 or more"):
        fftconv(u[..., :5], k[:, :0])
    with pytest.raises(ValueError, match=r"-1 taps of k \(3, 37\)"):
        fftconv(u, k, taps=-1)
