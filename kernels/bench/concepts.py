"""What concept models need: scores of the best position, clusters, heads for very many classes."""

from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from zoo.kernels.bench.comparison import Call, Comparison
from zoo.kernels.kmeans import assign
from zoo.kernels.kmeans import kmeans as cluster
from zoo.kernels.max_similarity import max_similarity as best_position
from zoo.kernels.retrieval_head import arrange, retrieve


def max_similarity(device: str, dtype: torch.dtype) -> Comparison:
    """A concept head on a small network's features."""
    return _scores(device, dtype, (256 if device == "cuda" else 32, 196, 128, 1000))


def max_similarity_wide(device: str, dtype: torch.dtype) -> Comparison:
    """A concept head on CLIP's features: the product itself is most of the work."""
    return _scores(device, dtype, (256 if device == "cuda" else 64, 196, 512, 1000))


def max_similarity_vocabulary(device: str, dtype: torch.dtype) -> Comparison:
    """A sparse retrieval head."""
    return _scores(device, dtype, (64 if device == "cuda" else 2, 256, 768, 30_522))


def max_similarity_training(device: str, dtype: torch.dtype) -> Comparison:
    batch, concepts = (64, 30_522) if device == "cuda" else (32, 1000)
    hidden = torch.randn(batch, 196, 512, device=device, dtype=dtype, requires_grad=True)
    embedding = torch.randn(concepts, 512, device=device, dtype=dtype, requires_grad=True)
    leaves = (hidden, embedding)
    calls: dict[str, Call] = {
        "max_similarity": lambda: torch.autograd.grad(
            best_position(*leaves, activation="log1p_relu").score.sum(), leaves
        ),
        "log1p(relu(h e)).amax": lambda: torch.autograd.grad(_dense_scores(*leaves).sum(), leaves),
    }
    if device == "cuda":
        compiled = torch.compile(_dense_scores, dynamic=False)
        calls["the same, compiled"] = lambda: torch.autograd.grad(compiled(*leaves).sum(), leaves)
    return Comparison("max_similarity", f"{batch} x 196 x 512, {concepts} concepts, training", calls, hidden)


def _scores(device: str, dtype: torch.dtype, sizes: tuple[int, int, int, int]) -> Comparison:
    batch, positions, features, concepts = sizes
    hidden = torch.randn(batch, positions, features, device=device, dtype=dtype)
    embedding = torch.randn(concepts, features, device=device, dtype=dtype)
    calls: dict[str, Call] = {
        "max_similarity": lambda: best_position(hidden, embedding, activation="log1p_relu", positions=False).score,
        "log1p(relu(h e)).amax": lambda: _dense_scores(hidden, embedding),
    }
    if device == "cuda":
        compiled = torch.compile(_dense_scores, dynamic=False)
        calls["the same, compiled"] = lambda: compiled(hidden, embedding)
    shapes = {"batch": batch, "positions": positions, "features": features, "concepts": concepts}
    return Comparison(
        "max_similarity", f"{batch} x {positions} x {features}, {concepts} concepts", calls, hidden, shapes
    )


def _dense_scores(hidden: Tensor, embedding: Tensor) -> Tensor:
    return torch.log1p(torch.relu(hidden @ embedding.t())).amax(1)


def kmeans_narrow(device: str, dtype: torch.dtype) -> Comparison:
    """Codebooks of a few channels, as in dkvb."""
    return _assignment(device, dtype, 32)


def kmeans(device: str, dtype: torch.dtype) -> Comparison:
    return _assignment(device, dtype, 128)


def kmeans_iterations(device: str, dtype: torch.dtype) -> Comparison:
    x, start = _points(device, dtype, 128)
    iterations = 10 if device == "cuda" else 4

    def plain() -> Tensor:
        centroids = start.float()
        for _ in range(iterations):
            ids = _nearest(x, centroids)
            counts = torch.bincount(ids, minlength=len(centroids))[:, None]
            sums = torch.zeros_like(centroids).index_add_(0, ids, x.float())
            centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
        return _nearest(x, centroids)

    calls: dict[str, Call] = {
        "kmeans": lambda: cluster(x, init=start, iterations=iterations, tolerance=0.0).assignment,
        "cdist.argmin, index_add": plain,
    }
    if device == "cpu":
        points, first = x.numpy(), start.numpy()
        kind = import_module("sklearn.cluster").KMeans
        calls["scikit-learn"] = lambda: torch.from_numpy(
            kind(len(first), init=first, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd").fit(points).labels_
        )
    return Comparison("kmeans", f"{len(x)} x 128, {len(start)} clusters, {iterations} iterations", calls, x)


def _assignment(device: str, dtype: torch.dtype, features: int) -> Comparison:
    x, centroids = _points(device, dtype, features)
    calls: dict[str, Call] = {
        "kmeans": lambda: assign(x, centroids)[0],
        "cdist.argmin": lambda: _nearest(x, centroids),
        "(|c|^2 - 2 x c).argmin": lambda: _expanded(x, centroids),
    }
    if device == "cuda":
        compiled = torch.compile(_expanded, dynamic=False)
        calls["the same, compiled"] = lambda: compiled(x, centroids)
    else:
        points, means = x.numpy(), centroids.numpy()
        argmin = import_module("sklearn.metrics").pairwise_distances_argmin
        calls["scikit-learn"] = lambda: torch.from_numpy(argmin(points, means))
    if find_spec("faiss"):
        calls["faiss"] = lambda: _by_faiss(x, centroids)
    shapes = {"points": len(x), "clusters": len(centroids), "features": features}
    return Comparison("kmeans", f"assign {len(x)} x {features} to {len(centroids)}", calls, x, shapes)


def _points(device: str, dtype: torch.dtype, features: int) -> tuple[Tensor, Tensor]:
    """So many that all distances fit no cache, and on a CPU not what the allocator keeps; and 1,024 of them."""
    points = 1_000_000 if device == "cuda" else 100_000
    x = torch.randn(points, features, device=device, dtype=dtype)
    return x, x[torch.randperm(points, device=device)[:1024]]


def _nearest(x: Tensor, centroids: Tensor) -> Tensor:
    return torch.cat([torch.cdist(part.float(), centroids.float()).argmin(1) for part in x.split(100_000)])


def _expanded(x: Tensor, centroids: Tensor) -> Tensor:
    lengths = centroids.float().square().sum(1)
    return torch.cat([(lengths - 2 * (part @ centroids.t())).argmin(1) for part in x.split(100_000)])


def _by_faiss(x: Tensor, centroids: Tensor) -> Tensor:
    faiss = import_module("faiss")
    import_module("faiss.contrib.torch_utils")  # teaches its indices to take tensors
    index = faiss.IndexFlatL2(centroids.shape[1])
    if x.is_cuda:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), x.device.index or 0, index)
    index.add(centroids.float())
    return index.search(x.float(), 1)[1][:, 0]


def retrieval_head(device: str, dtype: torch.dtype) -> Comparison:
    classes, tokens, features = 400_000 if device == "cuda" else 100_000, 8, 256
    groups = torch.arange(classes, device=device).view(-1, 16)
    middles = torch.randn(len(groups), features, device=device)
    weight = (middles.repeat_interleave(16, 0) + 0.5 * torch.randn(classes, features, device=device)).to(dtype)
    head = arrange(weight, groups)
    hidden = weight[:: classes // tokens][:tokens] + torch.randn(tokens, features, device=device, dtype=dtype)
    calls: dict[str, Call] = {
        "retrieval_head": lambda: retrieve(hidden, head),
        "(h w).max": lambda: (hidden @ weight.t()).max(1),
    }
    shapes = {"tokens": tokens, "features": features, "clusters": len(groups), "rows_per_cluster": 16}
    shapes["probes"] = len(groups) // 16
    case = f"{tokens} of {classes} classes, 1 of 16 clusters"
    return Comparison("retrieval_head", case, calls, hidden, shapes)


COMPARISONS = (
    max_similarity, max_similarity_wide, max_similarity_vocabulary, max_similarity_training,
    kmeans, kmeans_narrow, kmeans_iterations, retrieval_head,
)  # fmt: skip
