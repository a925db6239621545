"""What stands on attention: gradients in float64, one graph when compiled, ATen alone when exported."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.kernels.harness import check_compiled, check_exported
from zoo.kernels.attention import attention, merge
from zoo.kernels.flashbias import alibi_factors, distance_factors, factored_bias_attention, window_bias
from zoo.kernels.moba import moba_attention
from zoo.kernels.shared_prefix import shared_prefix_attention
from zoo.kernels.sparse_patterns import key_scores, lvsa_pattern, reshaped_attention, statistics

BLOCKS = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 1]]).bool()
FRAMES = lvsa_pattern(6, window=1, reference=3).block_mask()
HEADS, SHARED = (2, 4, 12, 5), (2, 2, 12, 5)


def merged(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return merge([attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in ((0, 5), (5, 12))])


def distances(q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
    phi_q, phi_k = distance_factors(x)
    return factored_bias_attention(q, k, v, -0.3 * phi_q, phi_k)


def refreshed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return reshaped_attention(q * 1.1, k, v, BLOCKS, (4, 4), statistics(q, k, v, BLOCKS, (4, 4)), steps=1)


COMPOSITIONS: dict[str, tuple[Callable[..., Tensor | tuple[Tensor, ...]], list[tuple[int, ...]]]] = {
    "merge": (merged, [HEADS, SHARED, SHARED]),
    "flashbias, ALiBi": (
        lambda q, k, v, slopes: factored_bias_attention(q, k, v, *alibi_factors(slopes, 12), True),
        [HEADS, HEADS, HEADS, (4,)],
    ),
    "flashbias, distances": (distances, [HEADS, HEADS, HEADS, (12, 3)]),
    "flashbias, windows": (
        lambda q, k, v, table: attention(q, k, v, window_bias(table, 3)),
        [*[(2, 4, 9, 5)] * 3, (25, 4)],
    ),
    "shared_prefix": (
        lambda *x: shared_prefix_attention(*x, causal=True),
        [HEADS, (1, 2, 7, 5), (1, 2, 7, 5), SHARED, SHARED],
    ),
    "moba": (lambda *x: moba_attention(*x, chunk=5, topk=2), [HEADS, SHARED, SHARED]),
    "moba, causal": (lambda *x: moba_attention(*x, chunk=5, topk=2, causal=True), [HEADS, SHARED, SHARED]),
    "lvsa": (lambda *x: attention(*x, block_mask=FRAMES, block_size=(2, 2)), [HEADS, SHARED, SHARED]),
    "rettention": (refreshed, [HEADS, HEADS, HEADS]),
    "zipvl": (lambda q, k: key_scores(q, k, causal=True)[:2], [HEADS[1:], HEADS[1:]]),
}
"""Each composition, and the shapes of what goes in."""


def inputs(name: str, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in COMPOSITIONS[name][1]]


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_gradients(name):
    given = [x.requires_grad_() for x in inputs(name, torch.float64)]
    assert torch.autograd.gradcheck(COMPOSITIONS[name][0], given, fast_mode=True)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_compiles_to_one_graph_and_exports_in_aten(name):
    given = inputs(name, torch.float32)
    check_compiled(COMPOSITIONS[name][0], *given)
    check_exported(COMPOSITIONS[name][0], *given)
