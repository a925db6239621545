"""What a GPU would be asked to do, on fake CUDA tensors: nothing that waits for the host, nothing that differs from run
to run.

A CUDA graph cannot hold the copy of a number to the host, the copy of a host's tensor, or a size that depends on data;
`torch.use_deterministic_algorithms` refuses the operations listed in its documentation. Fake tensors have no data, so
whatever would read some raises. Launches of Triton kernels are left out, bodies of `zoo::` operators run.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.kernels import kmeans
from zoo.kernels.fftconv import fftconv
from zoo.kernels.fftconv.triton import FACTORS, _tables
from zoo.kernels.linear import simplified_linear_attention, taylor_attention
from zoo.kernels.max_similarity import max_similarity
from zoo.kernels.monarch import monarch
from zoo.kernels.preprocess import preprocess
from zoo.kernels.quant_linear import quant_linear
from zoo.kernels.rational import rational
from zoo.kernels.retrieval_head import ClusteredHead, retrieve, sample
from zoo.kernels.sparse_patterns.zipvl import ZipvlScores, keys_for

GPU, ops = torch.device("cuda", 0), torch.ops.zoo

NOT_DETERMINISTIC = ("cumsum", "kthvalue", "median", "histc", "put_", "put", "bincount", "grid_sampler_2d_backward")
"""Of floating-point numbers on a GPU; `median` has indices, `bincount` weights. Of those that PyTorch lists, the ones
that could be of use here."""


class OnGpu(TorchDispatchMode):
    """Runs the bodies of our operators, and refuses what cannot be captured or is not the same in every run."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "zoo":
            with self:
                return OPDEFS[func.name().split(".")[0]]._init_fn(*args, **kwargs)
        out = func(*args, **kwargs)
        given, name = [x for x in tree_leaves(args) if isinstance(x, Tensor)], func.overloadpacket.__name__
        places = {x.device.type for x in (*given, *([out] if isinstance(out, Tensor) else [])) if x.ndim}
        assert len(places) < 2, f"{func} copies between the host and the GPU"
        floats = any(x.is_floating_point() and x.is_cuda for x in given)
        assert not (floats and name in NOT_DETERMINISTIC), f"{func} differs from run to run"
        return out


@pytest.fixture
def gpu(monkeypatch) -> Iterator[None]:
    """A process that believes in a GPU and launches nothing."""
    monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device=None: SimpleNamespace(multi_processor_count=132)
    )
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(triton.JITFunction, "run", lambda kernel, *args, grid, warmup, **named: None)
    monkeypatch.setattr("zoo.kernels.dispatch.TRITON_PROBLEM", None)
    with FakeTensorMode(), torch.no_grad():
        for size in FACTORS:  # made in the first call, before anything is captured
            _tables(size, GPU)
        with OnGpu():
            yield
    _tables.cache_clear()


def made(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=GPU)


def call_kmeans() -> None:
    x, centroids = made(2, 300, 16, dtype=torch.float32), made(2, 9, 16, dtype=torch.float32)
    ids, _ = kmeans.assign(x, centroids)
    kmeans.update(x, ids, centroids)
    kmeans._spread(x, 3, None)


def call_fftconv() -> None:
    for length in (200, 900, 5000):
        u, k = made(2, 3, length), made(3, length)
        fftconv(u, k, in_gate=u)
        ops.fftconv_backward(u, u, k, u, None, 1 << (2 * length - 1).bit_length())


def call_linear() -> None:
    for tokens, causal in ((49, True), (3000, True), (3000, False)):
        q, k, v = (made(1, 2, tokens, 16) for _ in "qkv")
        taylor_attention(q, k, v, causal)
        for kind in ("taylor", "linear"):
            ops.linear_attention_backward(v, q, k, v, *ops.linear_attention(q, k, v, kind, causal, 1e-6), kind, causal)
    simplified_linear_attention(q, k, v, made(16, 1, 3, 3), grid=(50, 60))


def call_max_similarity() -> None:
    hidden, embedding = made(2, 70, 48), made(96, 48)
    for mask in (None, made(2, 70, dtype=torch.bool)):
        max_similarity(hidden, embedding, made(96), mask, activation="log1p_relu", cosine=True)
        top, at = ops.max_dot(hidden, embedding, mask)
        ops.max_dot_backward(top, hidden, embedding, at)


def call_monarch() -> None:
    x, w1, w2 = made(70, 48), made(6, 8, 8), made(8, 6, 6)
    ops.monarch_backward(monarch(x, w1, w2), x, ops.monarch(x, w1, w2)[1], w1, w2)


def call_rational() -> None:
    x, a, b = made(9, 48), made(4, 6), made(4, 4)
    ops.rational_backward(rational(x, a, b), x, a, b)


def call_preprocess() -> None:
    images, numbers = made(2, 20, 30, 3, dtype=torch.uint8), (0.5, 0.4, 0.3)
    for boxes, flip in ((None, None), (made(2, 4, dtype=torch.int64), made(2, dtype=torch.bool))):
        preprocess(images, (8, 9), mean=numbers, std=numbers, boxes=boxes, flip=flip)


def call_retrieval_head() -> None:
    head = ClusteredHead(made(12, 8, 32), made(12, 8, dtype=torch.int64), made(12, 32), made(12, dtype=torch.float32))
    for k in (1, 3):
        retrieve(made(5, 32), head, probes=4, k=k)
    sample(made(5, 32), head, probes=4)


CALLS: dict[str, Callable[[], Any]] = {
    "fftconv": call_fftconv,
    "kmeans": call_kmeans,
    "linear": call_linear,
    "max_similarity": call_max_similarity,
    "monarch": call_monarch,
    "preprocess": call_preprocess,
    "quant_linear": lambda: quant_linear(made(9, 48), made(32, 48, dtype=torch.int8), made(32), made(32)),
    "rational": call_rational,
    "retrieval_head": call_retrieval_head,
}


@pytest.mark.parametrize("name", CALLS)
def test_can_be_captured_and_is_the_same_in_every_run(name, gpu):
    CALLS[name]()


def test_zipvl_waits_for_nothing_but_its_count(gpu):
    """How many keys are kept is a number for the host, by design; the sum behind it is the same in every run."""
    scores = ZipvlScores(made(50, dtype=torch.float32), made(50, dtype=torch.float32), 50)
    with pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        keys_for(scores, 0.9)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: torch.arange(3).to(x.device),
        lambda x: x[torch.arange(3)],
        lambda x: x.cumsum(0),
    ],
)
def test_what_cannot_is_seen(broken, gpu):
    with pytest.raises((AssertionError, RuntimeError)):
        broken(made(8))
