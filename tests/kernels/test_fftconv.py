"""FFT convolution: parity, direct convolution, causality, gradients, registration, export, resources."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.cases import Case, adapter
from tests.kernels.harness import check_ahead, check_compiled, check_exported, close, interpreter_test
from zoo.kernels.fftconv import fftconv, reference

test_interpreter = interpreter_test("interpret_fftconv.py")


@adapter("fftconv", "fftconv")
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
        "output/y_freq_sparse": fftconv(u, k, frequencies=case.arguments["freq_keep"] // 2),
        "output/monarch_stage1": torch.view_as_real(stages[0]),
        "output/monarch_stage2": torch.view_as_real(stages[1]),
    }
    result |= case.gradients((y * dy).sum(), {"grad/u": u, "grad/k": k})
    names = {"grad/u_gated": "u", "grad/k_gated": "k", "grad/in_gate": "in_gate", "grad/out_gate": "out_gate"}
    return result | case.gradients((gated * dy).sum(), {key: given[name] for key, name in names.items()})


@adapter("flashfftconv", "gated_conv")
def gated_conv(case: Case) -> dict:
    given = {name: case.input[name].requires_grad_() for name in ("u", "k", "in_gate", "out_gate")}
    size = case.arguments["fft_size"]
    y = fftconv(given["u"], given["k"], fft_size=size, in_gate=given["in_gate"], out_gate=given["out_gate"])
    return {"output/y": y, **case.gradients(y.sum(), {f"grad/{name}": value for name, value in given.items()})}


@adapter("flashfftconv", "sparse_convs")
def sparse_convs(case: Case) -> dict:
    x, k, arguments = case.input["x"], case.input["k"], case.arguments
    return {
        "output/full_causal": fftconv(x, k),
        "output/partial": fftconv(x, k, taps=arguments["n_partial"]),
        "output/frequency_sparse": fftconv(x, k, fft_size=arguments["fft_size"], frequencies=arguments["n_freq"] // 2),
    }


@adapter("flashfftconv", "block_fft")
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
    close(torch.ops.zoo.fftconv(u, k, 256), want)
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


def test_dft_stages():
    x = torch.randn(64, dtype=torch.float64)
    _, stages = reference.monarch_dft(x, 16, 4)
    close(torch.view_as_real(stages.t().flatten()), torch.view_as_real(torch.fft.fft(x)))


def test_gradients():
    u, k = (value.requires_grad_() for value in inputs(7, 5, torch.float64))
    gate = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, k, g: fftconv(u, k, in_gate=g, out_gate=g, frequencies=4), (u, k, gate))
    assert torch.autograd.gradcheck(lambda u, k: torch.ops.zoo.fftconv(u, k, 9), (u, k))
    assert torch.autograd.gradcheck(lambda u, k: reference.fftconv(u, k, 9), (u, k))


def test_operators_are_registered_soundly():
    u, k = inputs(dtype=torch.float64)
    torch.library.opcheck(torch.ops.zoo.fftconv.default, (u.requires_grad_(), k.requires_grad_(), 128))
    plain = (torch.randn_like(u), u.detach(), k.detach(), 128)
    torch.library.opcheck(torch.ops.zoo.fftconv_backward.default, plain)


def test_low_precision_compile_and_export():
    u, k = inputs()
    assert fftconv(u.bfloat16(), k).dtype == torch.bfloat16
    check_compiled(fftconv, u, k)
    check_exported(fftconv, u, k)


def test_errors():
    u, k = inputs()
    with pytest.raises(ValueError, match="expected"):
        fftconv(u, k[:2])
    with pytest.raises(ValueError, match="below the length 37"):
        fftconv(u, k, fft_size=36)


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_resources(target):
    from zoo.kernels.fftconv.triton import configurations

    check_ahead(configurations(), target, matrix=True)
