"""Every operation beside what a user would call instead, timed in one run.

    for row in rows(): print(row)

On a GPU `triton.testing.do_bench` times each function; on a CPU the functions take turns and the turns are compared, so
that other work on the machine slows them alike.
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
    ours (above 1 = ours is faster), the median of the turns. path: what the dispatcher picked. floor: share of the time
    floor that we reach (None where the device is not in `cost.DEVICES`)."""

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
        return f"{self.op:16s} {self.case:44s} {self.path:6s} {self.ratio:5.2f}x  {times}{share}"


@dataclass(frozen=True)
class Comparison:
    """`calls[op]` is ours; `shapes` are for the cost model (None: no floor, as for a backward)."""

    op: str
    case: str
    calls: Mapping[str, Call]
    probe: Tensor
    shapes: Mapping[str, int] | None = None


def rows(device: str | None = None, *, only: str | None = None, rounds: int = 7) -> Iterator[Row]:
    """Time all comparisons, or those whose name starts with `only`, on "cuda" where there is one, else on the CPU."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    for make in COMPARISONS:
        if only is not None and not make.__name__.startswith(only):
            continue
        torch.manual_seed(0)
        found = make(device, dtype)
        turns = _on_gpu(found.calls) if device == "cuda" else _on_cpu(found.calls, rounds)
        times = {name: statistics.median(taken) for name, taken in turns.items()}
        others = zip(*(taken for name, taken in turns.items() if name != found.op))
        ratios = [min(other) / ours for other, ours in zip(others, turns[found.op])]
        path = "triton" if runs_triton(found.probe) else "aten"
        yield Row(
            found.op, found.case, _name(device), str(dtype).removeprefix("torch."), path, times,
            statistics.median(ratios), _share(found, dtype, device, times[found.op]),
        )  # fmt: skip


def _on_gpu(calls: Mapping[str, Call]) -> dict[str, list[float]]:
    from triton.testing import do_bench

    return {name: [do_bench(call, warmup=25, rep=100, return_mode="median")] for name, call in calls.items()}


def _on_cpu(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return taken


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


def _dense_scores(hidden: Tensor, embedding: Tensor) -> Tensor:
    return torch.log1p(torch.relu(hidden @ embedding.t())).amax(1)


def _max_similarity(device: str, dtype: torch.dtype, sizes: tuple[int, int, int, int]) -> Comparison:
    from zoo.kernels.max_similarity import max_similarity as ours

    batch, positions, features, concepts = sizes
    hidden = torch.randn(batch, positions, features, device=device, dtype=dtype)
    embedding = torch.randn(concepts, features, device=device, dtype=dtype)
    calls = {
        "max_similarity": lambda: ours(hidden, embedding, activation="log1p_relu", positions=False),
        "log1p(relu(h e)).amax": lambda: _dense_scores(hidden, embedding),
    }
    shapes = {"batch": batch, "positions": positions, "features": features, "concepts": concepts}
    case = f"{batch} x {positions} x {features}, {concepts} concepts"
    return Comparison("max_similarity", case, calls, hidden, shapes)


def max_similarity(device: str, dtype: torch.dtype) -> Comparison:
    """A concept head on a small network's features."""
    return _max_similarity(device, dtype, (_big(device, 256, 32), 196, 128, 1000))


def max_similarity_wide(device: str, dtype: torch.dtype) -> Comparison:
    """A concept head on CLIP's features: the product itself is most of the work."""
    return _max_similarity(device, dtype, (_big(device, 256, 32), 196, 512, 1000))


def max_similarity_vocabulary(device: str, dtype: torch.dtype) -> Comparison:
    """A sparse retrieval head."""
    return _max_similarity(device, dtype, (_big(device, 256, 2), 256, 768, 30_522))


def max_similarity_training(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.max_similarity import max_similarity as ours

    batch, concepts = _big(device, 256, 32), _big(device, 30_522, 1000)
    hidden = torch.randn(batch, 196, 512, device=device, dtype=dtype)
    embedding = torch.randn(concepts, 512, device=device, dtype=dtype)
    leaves = (hidden.requires_grad_(), embedding.requires_grad_())
    calls = {
        "max_similarity": lambda: torch.autograd.grad(ours(*leaves, activation="log1p_relu").score.sum(), leaves),
        "log1p(relu(h e)).amax": lambda: torch.autograd.grad(_dense_scores(*leaves).sum(), leaves),
    }
    return Comparison("max_similarity", f"{batch} x 196 x 512, {concepts} concepts, training", calls, hidden)


def _points(device: str, dtype: torch.dtype, features: int) -> tuple[Tensor, Tensor]:
    points = _big(device, 1_000_000, 20_000)
    x = torch.randn(points, features, device=device, dtype=dtype)
    return x, x[torch.randperm(points, device=device)[:1024]]


def _nearest(x: Tensor, centroids: Tensor) -> Tensor:
    return torch.cat([torch.cdist(part.float(), centroids.float()).argmin(1) for part in x.split(100_000)])


def _assign(device: str, dtype: torch.dtype, features: int) -> Comparison:
    from zoo.kernels.kmeans import assign

    x, centroids = _points(device, dtype, features)
    calls = {"kmeans": lambda: assign(x, centroids), "cdist.argmin": lambda: _nearest(x, centroids)}
    shapes = {"points": len(x), "clusters": len(centroids), "features": features}
    return Comparison("kmeans", f"assign {len(x)} x {features} to {len(centroids)}", calls, x, shapes)


def kmeans_narrow(device: str, dtype: torch.dtype) -> Comparison:
    """Codebooks of a few channels, as in dkvb."""
    return _assign(device, dtype, 32)


def kmeans(device: str, dtype: torch.dtype) -> Comparison:
    return _assign(device, dtype, 128)


def kmeans_iterations(device: str, dtype: torch.dtype) -> Comparison:
    from zoo.kernels.kmeans import kmeans as ours

    x, start = _points(device, dtype, 128)

    def plain() -> Tensor:
        centroids = start.float()
        for _ in range(10):
            ids = _nearest(x, centroids)
            counts = torch.bincount(ids, minlength=len(centroids))[:, None]
            sums = torch.zeros_like(centroids).index_add_(0, ids, x.float())
            centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
        return _nearest(x, centroids)

    calls = {"kmeans": lambda: ours(x, init=start, iterations=10, tolerance=0.0), "cdist.argmin, index_add": plain}
    return Comparison("kmeans", f"{len(x)} x 128, {len(start)} clusters, 10 iterations", calls, x)


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
    attention, quant_linear, max_similarity, max_similarity_wide, max_similarity_vocabulary, max_similarity_training,
    kmeans, kmeans_narrow, kmeans_iterations, preprocess, rational, rational_training, monarch, fftconv, retrieval_head,
    linear_attention, linear_attention_training, taylor_attention, taylor_attention_training,
)  # fmt: skip
