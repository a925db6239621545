"""Every operation beside what a user would call instead, timed in one run.

    for row in rows(): print(row)

On a GPU `triton.testing.do_bench` times each function; on a CPU the functions take turns and the medians are compared,
so that other work on the machine slows them alike.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.cost import DEVICES, cost
from zoo.kernels.dispatch import runs_triton

Call = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One comparison. times: milliseconds by name, ours under the operation's own name. ratio: the fastest other over
    ours (above 1 = ours is faster). path: what the dispatcher picked. floor: share of the time floor that we reach
    (None where the device is not in `cost.DEVICES`)."""

    op: str
    case: str
    device: str
    dtype: str
    path: str
    times: Mapping[str, float]
    ratio: float
    floor: float | None

    def __str__(self) -> str:
        times = "  ".join(f"{name} {value:.3f} ms" for name, value in self.times.items())
        share = "" if self.floor is None else f"  {self.floor:.0%} of the floor"
        return f"{self.op:16s} {self.case:34s} {self.path:6s} {self.ratio:5.2f}x  {times}{share}"


@dataclass(frozen=True)
class Comparison:
    """`calls[op]` is ours; `shapes` are for the cost model (None: no floor, as for a backward)."""

    op: str
    case: str
    calls: Mapping[str, Call]
    probe: Tensor
    shapes: Mapping[str, int] | None = None


def rows(device: str | None = None, *, only: str | None = None, rounds: int = 7) -> Iterator[Row]:
    """Time every comparison whose operation is `only` (None: all), on "cuda" where there is one, else on the CPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    for make in COMPARISONS:
        if only is not None and make.__name__.removesuffix("_training") != only:
            continue
        torch.manual_seed(0)
        found = make(device, dtype)
        times = _on_gpu(found.calls) if device == "cuda" else _on_cpu(found.calls, rounds)
        ours = times[found.op]
        path = "triton" if runs_triton(found.probe) else "aten"
        others = [value for name, value in times.items() if name != found.op]
        yield Row(
            found.op, found.case, _name(device), str(dtype).removeprefix("torch."), path, times,
            min(others) / ours, _share(found, dtype, device, ours),
        )  # fmt: skip


def _on_gpu(calls: Mapping[str, Call]) -> dict[str, float]:
    from triton.testing import do_bench

    return {name: do_bench(call, warmup=25, rep=100, return_mode="median") for name, call in calls.items()}


def _on_cpu(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in taken.items()}


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def _share(found: Comparison, dtype: torch.dtype, device: str, milliseconds: float) -> float | None:
    known = next((key for key in DEVICES if device == "cuda" and key in _name(device).lower()), None)
    if known is None or found.shapes is None:
        return None
    return 1e3 * cost(found.op, found.shapes, str(dtype).removeprefix("torch."), known).seconds / milliseconds


def _big(device: str, gpu: int, cpu: int) -> int:
    return gpu if device == "cuda" else cpu


def attention(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.attention import attention as ours

    batch = _big(device, 64, 4)
    qkv = torch.randn(batch, 197, 3, 12, 64, device=device, dtype=dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    shapes = {"batch": batch, "heads": 12, "q_len": 197, "kv_len": 197, "head_dim": 64}
    calls = {"attention": lambda: ours(q, k, v), "sdpa": lambda: F.scaled_dot_product_attention(q, k, v)}
    return Comparison("attention", f"ViT-B, batch {batch}, fused qkv", calls, qkv, shapes)


def quant_linear(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.quant_linear import quant_linear as ours
    from zoo.kernels.quant_linear import quantize_weight

    rows_ = 197 * _big(device, 64, 2)
    x, weight = torch.randn(rows_, 768, device=device, dtype=dtype), torch.randn(3072, 768, device=device, dtype=dtype)
    codes, scale = quantize_weight(weight)
    calls = {"quant_linear": lambda: ours(x, codes, scale), "linear": lambda: F.linear(x, weight)}
    shapes = {"rows": rows_, "inputs": 768, "outputs": 3072}
    return Comparison("quant_linear", f"{rows_} x 768 x 3072", calls, x, shapes)


def _max_similarity(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, dict[str, int]]:
    batch, concepts = _big(device, 256, 32), _big(device, 30_522, 1000)
    hidden = torch.randn(batch, 196, 512, device=device, dtype=dtype)
    embedding = torch.randn(concepts, 512, device=device, dtype=dtype)
    return hidden, embedding, {"batch": batch, "positions": 196, "features": 512, "concepts": concepts}


def _dense_scores(hidden: Tensor, embedding: Tensor) -> Tensor:
    return torch.log1p(torch.relu(hidden @ embedding.t())).amax(1)


def max_similarity(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.max_similarity import max_similarity as ours

    hidden, embedding, shapes = _max_similarity(device, dtype)
    calls = {
        "max_similarity": lambda: ours(hidden, embedding, activation="log1p_relu", positions=False),
        "log1p(relu(h e)).amax": lambda: _dense_scores(hidden, embedding),
    }
    case = "{batch} x {positions}, {concepts} concepts".format(**shapes)
    return Comparison("max_similarity", case, calls, hidden, shapes)


def max_similarity_training(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.max_similarity import max_similarity as ours

    hidden, embedding, shapes = _max_similarity(device, dtype)
    leaves = (hidden.requires_grad_(), embedding.requires_grad_())
    calls = {
        "max_similarity": lambda: torch.autograd.grad(ours(*leaves, activation="log1p_relu").score.sum(), leaves),
        "log1p(relu(h e)).amax": lambda: torch.autograd.grad(_dense_scores(*leaves).sum(), leaves),
    }
    case = "{batch} x {positions}, {concepts} concepts, training".format(**shapes)
    return Comparison("max_similarity", case, calls, hidden)


def kmeans(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.kmeans import assign

    points, clusters, features = _big(device, 1_000_000, 20_000), _big(device, 1024, 512), 128
    x = torch.randn(points, features, device=device, dtype=dtype)
    centroids = torch.randn(clusters, features, device=device, dtype=dtype)

    def chunked() -> list[Tensor]:
        return [torch.cdist(part.float(), centroids.float()).argmin(1) for part in x.split(100_000)]

    calls = {"kmeans": lambda: assign(x, centroids), "cdist.argmin": chunked}
    shapes = {"points": points, "clusters": clusters, "features": features}
    return Comparison("kmeans", f"assign {points} to {clusters}", calls, x, shapes)


def preprocess(device: str, dtype: torch.dtype) -> Comparison:
    from torchvision.transforms import v2

    from zoo.kernels.preprocess import preprocess as ours

    batch = _big(device, 256, 8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = torch.randint(0, 256, (batch, 375, 500, 3), dtype=torch.uint8, device=device)
    chain = v2.Compose([v2.Resize((224, 224)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    calls = {
        "preprocess": lambda: ours(images, 224, mean=mean, std=std, round_uint8=True, dtype=dtype),
        "torchvision v2": lambda: chain(images.permute(0, 3, 1, 2)).to(dtype),
    }
    return Comparison(
        "preprocess",
        f"{batch} x 375 x 500 to 224",
        calls,
        images,
        {"batch": batch, "height": 375, "width": 500, "size": 224},
    )


def _rational(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(_big(device, 64, 4), 197, 1536, device=device, dtype=dtype)
    return x, torch.randn(8, 6, device=device), torch.randn(8, 4, device=device)


def rational(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.rational import rational as ours
    from zoo.kernels.rational import reference

    x, a, b = _rational(device, dtype)
    calls = {"rational": lambda: ours(x, a, b), "plain PyTorch": lambda: reference.rational(x.float(), a, b)}
    return Comparison("rational", f"{tuple(x.shape)}", calls, x, {"values": x.numel()})


def rational_training(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.rational import rational as ours
    from zoo.kernels.rational import reference

    leaves = [value.requires_grad_() for value in _rational(device, dtype)]
    calls = {
        "rational": lambda: torch.autograd.grad(ours(*leaves).sum(), leaves),
        "plain PyTorch": lambda: torch.autograd.grad(reference.rational(leaves[0].float(), *leaves[1:]).sum(), leaves),
    }
    return Comparison("rational", f"{tuple(leaves[0].shape)}, training", calls, leaves[0])


def monarch(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.monarch import monarch as ours
    from zoo.kernels.monarch import reference

    x = torch.randn(_big(device, 16_384, 512), 1024, device=device, dtype=dtype)
    w1, w2 = (torch.randn(32, 32, 32, device=device, dtype=dtype) for _ in range(2))
    calls = {"monarch": lambda: ours(x, w1, w2), "einsum": lambda: reference.monarch(x, w1, w2)}
    shapes = {"batch": len(x)} | dict.fromkeys(("k", "q", "p", "l", "s", "r"), 32)
    return Comparison("monarch", f"{len(x)} x 1024", calls, x, shapes)


def fftconv(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.fftconv import fftconv as ours

    batch, length = _big(device, 64, 4), 1000
    u, k = torch.randn(batch, 256, length, device=device, dtype=dtype), torch.randn(256, length, device=device)

    def plain() -> Tensor:
        spectrum = torch.fft.rfft(u.float(), n=2 * length) * torch.fft.rfft(k, n=2 * length)
        return torch.fft.irfft(spectrum, n=2 * length)[..., :length]

    shapes = {"batch": batch, "channels": 256, "length": length, "fft_size": 2048}
    calls = {"fftconv": lambda: ours(u, k), "torch.fft": plain}
    return Comparison("fftconv", f"{batch} x 256 x {length}, causal", calls, u, shapes)


def retrieval_head(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.retrieval_head import arrange, retrieve

    classes, tokens, features = _big(device, 400_000, 100_000), 8, 256
    groups = torch.arange(classes, device=device).view(-1, 16)
    middles = torch.randn(len(groups), features, device=device)
    weight = (middles.repeat_interleave(16, 0) + 0.5 * torch.randn(classes, features, device=device)).to(dtype)
    head = arrange(weight, groups)
    hidden = weight[:: classes // tokens][:tokens] + torch.randn(tokens, features, device=device, dtype=dtype)
    calls = {
        "retrieval_head": lambda: retrieve(hidden, head),
        "(h w).max": lambda: (hidden @ weight.t()).max(1),
    }
    shapes = {"tokens": tokens, "features": features, "clusters": len(groups), "rows_per_cluster": 16}
    shapes["probes"] = len(groups) // 16
    case = f"{tokens} of {classes} classes, 1 of 16 clusters"
    return Comparison("retrieval_head", case, calls, hidden, shapes)


def _linear(device: str, dtype: torch.dtype, shape: tuple[int, int, int], channels: int) -> list[Tensor]:
    sizes = ((*shape, channels), (*shape, channels), (*shape, 64))
    return [torch.randn(size, device=device, dtype=dtype).abs() for size in sizes]


def _plain_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(-2, keepdim=True).transpose(-1, -2) + 1e-6)


def linear_attention(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.linear import linear_attention as ours

    batch = _big(device, 64, 4)
    q, k, v = _linear(device, dtype, (batch, 12, 784), 64)
    calls = {"linear_attention": lambda: ours(q, k, v), "q (k v) / q sum k": lambda: _plain_linear(q, k, v)}
    shapes = {"heads": batch * 12, "tokens": 784, "channels": 64, "values": 64}
    return Comparison("linear_attention", f"{batch} x 12 x 784 x 64", calls, q, shapes)


def linear_attention_training(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.linear import linear_attention as ours

    batch = _big(device, 64, 4)
    q, k, v = leaves = [x.requires_grad_() for x in _linear(device, dtype, (batch, 12, 784), 64)]
    calls = {
        "linear_attention": lambda: torch.autograd.grad(ours(q, k, v).sum(), leaves),
        "q (k v) / q sum k": lambda: torch.autograd.grad(_plain_linear(*leaves).sum(), leaves),
    }
    return Comparison("linear_attention", f"{batch} x 12 x 784 x 64, training", calls, leaves[0])


def _plain_taylor(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s = q @ k.transpose(-1, -2) * 0.25
    weights = (1 + s + s * s / 2).tril()
    return weights @ v / weights.sum(-1, keepdim=True)


def taylor_attention(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.linear import taylor_attention as ours

    heads, tokens = _big(device, 96, 4), _big(device, 4096, 2048)
    q, k, v = _linear(device, dtype, (1, heads, tokens), 16)
    calls = {"taylor_attention": lambda: ours(q, k, v, True), "(1 + s + s^2/2).tril": lambda: _plain_taylor(q, k, v)}
    shapes = {"heads": heads, "tokens": tokens, "channels": 16, "values": 64, "causal": 1}
    return Comparison("taylor_attention", f"{heads} x {tokens}, causal", calls, q, shapes)


def taylor_attention_training(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.linear import taylor_attention as ours

    heads, tokens = _big(device, 96, 4), _big(device, 4096, 2048)
    q, k, v = leaves = [x.requires_grad_() for x in _linear(device, dtype, (1, heads, tokens), 16)]
    calls = {
        "taylor_attention": lambda: torch.autograd.grad(ours(q, k, v, True).sum(), leaves),
        "(1 + s + s^2/2).tril": lambda: torch.autograd.grad(_plain_taylor(*leaves).sum(), leaves),
    }
    return Comparison("taylor_attention", f"{heads} x {tokens}, causal, training", calls, leaves[0])


COMPARISONS: tuple[Callable[[str, torch.dtype], Comparison], ...] = (
    attention, quant_linear, max_similarity, max_similarity_training, kmeans, preprocess, rational, rational_training,
    monarch, fftconv, retrieval_head, linear_attention, linear_attention_training, taylor_attention,
    taylor_attention_training,
)  # fmt: skip
