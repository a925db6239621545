"""Layers beside their plain PyTorch: quantised and Monarch products, rationals, long convolutions, preprocessing."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.bench.comparison import Call, Comparison
from zoo.kernels.fftconv import fftconv as convolve
from zoo.kernels.fftconv import runs_kernel
from zoo.kernels.monarch import monarch as product
from zoo.kernels.monarch import reference as monarch_reference
from zoo.kernels.preprocess import preprocess as prepare
from zoo.kernels.quant_linear import quant_linear as quantized
from zoo.kernels.quant_linear import quantize_weight
from zoo.kernels.rational import rational as ratio
from zoo.kernels.rational import reference as rational_reference


def quant_linear(device: str, dtype: torch.dtype) -> Comparison:
    rows = 197 * (64 if device == "cuda" else 2)
    x, weight = torch.randn(rows, 768, device=device, dtype=dtype), torch.randn(3072, 768, device=device, dtype=dtype)
    codes, scale = quantize_weight(weight)
    calls = {"quant_linear": lambda: quantized(x, codes, scale), "linear": lambda: F.linear(x, weight)}
    shapes = {"rows": rows, "inputs": 768, "outputs": 3072}
    return Comparison("quant_linear", f"{rows} x 768 x 3072", calls, x, shapes)


def preprocess(device: str, dtype: torch.dtype) -> Comparison:
    from torchvision.transforms import v2

    batch = 256 if device == "cuda" else 8
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = torch.randint(0, 256, (batch, 375, 500, 3), dtype=torch.uint8, device=device)
    chain = v2.Compose([v2.Resize((224, 224)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    calls = {
        "preprocess": lambda: prepare(images, 224, mean=mean, std=std, round_uint8=True, dtype=dtype),
        "torchvision v2": lambda: chain(images.permute(0, 3, 1, 2)).to(dtype),
    }
    shapes = {"batch": batch, "height": 375, "width": 500, "size": 224}
    return Comparison("preprocess", f"{batch} x 375 x 500 to 224", calls, images, shapes)


def rational(device: str, dtype: torch.dtype) -> Comparison:
    x, a, b = _rational_input(device, dtype)
    calls: dict[str, Call] = {
        "rational": lambda: ratio(x, a, b),
        "plain PyTorch": lambda: rational_reference.rational(x.float(), a, b).to(dtype),
    }
    if device == "cuda":
        compiled = torch.compile(rational_reference.rational, dynamic=False)
        calls["the same, compiled"] = lambda: compiled(x.float(), a, b).to(dtype)
    return Comparison("rational", f"{tuple(x.shape)}", calls, x, {"values": x.numel()})


def rational_backward(device: str, dtype: torch.dtype) -> Comparison:
    leaves = [value.requires_grad_() for value in _rational_input(device, dtype)]
    x, a, b = leaves
    upstream = torch.randn_like(x).detach()
    y, plain = ratio(x, a, b), rational_reference.rational(x.float(), a, b).to(dtype)
    calls: dict[str, Call] = {
        "rational": lambda: torch.autograd.grad(y, leaves, upstream, retain_graph=True),
        "plain PyTorch": lambda: torch.autograd.grad(plain, leaves, upstream, retain_graph=True),
    }
    return Comparison("rational", f"{tuple(x.shape)}, backward", calls, x, {"values": x.numel(), "backward": 1})


def _rational_input(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(64 if device == "cuda" else 4, 197, 1536, device=device, dtype=dtype)
    return x, torch.randn(8, 6, device=device), torch.randn(8, 4, device=device)


def monarch(device: str, dtype: torch.dtype) -> Comparison:
    x = torch.randn(16_384 if device == "cuda" else 512, 1024, device=device, dtype=dtype)
    w1, w2 = (torch.randn(32, 32, 32, device=device, dtype=dtype) for _ in range(2))
    calls: dict[str, Call] = {
        "monarch": lambda: product(x, w1, w2),
        "einsum": lambda: monarch_reference.monarch(x, w1, w2),
    }
    if device == "cuda":
        compiled = torch.compile(monarch_reference.monarch, dynamic=False)
        calls["einsum, compiled"] = lambda: compiled(x, w1, w2)
    shapes = {"batch": len(x)} | dict.fromkeys(("k", "q", "p", "l", "s", "r"), 32)
    return Comparison("monarch", f"{len(x)} x 1024", calls, x, shapes)


def fftconv(device: str, dtype: torch.dtype) -> Comparison:
    return _convolution(device, dtype, 1000)


def fftconv_4k(device: str, dtype: torch.dtype) -> Comparison:
    return _convolution(device, dtype, 4096)


def fftconv_16k(device: str, dtype: torch.dtype) -> Comparison:
    return _convolution(device, dtype, 16_384)


def fftconv_64k(device: str, dtype: torch.dtype) -> Comparison:
    return _convolution(device, dtype, 65_536)


def _convolution(device: str, dtype: torch.dtype, length: int) -> Comparison:
    """Causal, as many values in every length."""
    batch, channels = (64, 2**22 // length // 16) if device == "cuda" else (4, max(1, 256_000 // length))
    u, k = (
        torch.randn(batch, channels, length, device=device, dtype=dtype),
        torch.randn(channels, length, device=device),
    )

    def plain() -> Tensor:
        spectrum = torch.fft.rfft(u.float(), n=2 * length) * torch.fft.rfft(k, n=2 * length)
        return torch.fft.irfft(spectrum, n=2 * length)[..., :length].to(dtype)

    shapes = {"batch": batch, "channels": channels, "length": length, "fft_size": 1 << (2 * length - 1).bit_length()}
    calls = {"fftconv": lambda: convolve(u, k), "torch.fft": plain}
    kernel = runs_kernel(u, k, fft_size=None)
    return Comparison("fftconv", f"{batch} x {channels} x {length}, causal", calls, u, shapes, kernel)


COMPARISONS = (
    quant_linear, preprocess, rational, rational_backward, monarch, fftconv, fftconv_4k, fftconv_16k, fftconv_64k,
)  # fmt: skip
