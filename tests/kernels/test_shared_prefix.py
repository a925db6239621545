"""Shared prefixes and merging: golden parity, and equality with attention over joined keys."""

import pytest
import torch
from torch import Tensor

from tests.golden.cases import Case, adapter
from zoo.kernels.attention import attention, merge
from zoo.kernels.shared_prefix import shared_prefix_attention


@adapter("lse_merge", "merge_lse", repeats=("batch", "head_dim", "heads", "q_len", "shared_len"))
def golden_merge(case: Case) -> dict[str, Tensor]:
    """The case lies as (B, length, H, D)."""
    arguments, scale = case.arguments, case.arguments["softmax_scale"]
    q, k, v, prefix_k, prefix_v = (case.input[key].transpose(1, 2) for key in ("q", "k", "v", "shared_k", "shared_v"))
    batch = len(q)
    parts = [attention(q, *(x.expand(batch, -1, -1, -1) for x in (prefix_k, prefix_v)), scale=scale, return_lse=True)]
    for chunk_k, chunk_v in zip(k.split(arguments["splits"], 2), v.split(arguments["splits"], 2)):
        parts.append(attention(q, chunk_k, chunk_v, scale=scale, return_lse=True))
    o, lse = shared_prefix_attention(q, prefix_k, prefix_v, k, v, scale=scale, return_lse=True)
    torch.testing.assert_close((o, lse), merge(parts))
    joined = [torch.cat([a.expand(batch, -1, -1, -1), b], 2) for a, b in ((prefix_k, k), (prefix_v, v))]
    under = attention(q, *joined, scale=scale, unified_max=arguments["phi"], return_lse=True)
    denominator = (under[1] - arguments["phi"]).exp()
    numerator = under[0] * denominator.unsqueeze(-1)
    return {
        "output/part_o": torch.stack([part.transpose(1, 2) for part, _ in parts]),
        "output/part_lse": _like(case, "output/part_lse", torch.stack([part for _, part in parts])),
        "output/o": o.transpose(1, 2),
        "output/lse": _like(case, "output/lse", lse),
        "output/unified_num_phi0": numerator.transpose(1, 2),
        "output/unified_den_phi0": _like(case, "output/unified_den_phi0", denominator),
    }


def _like(case: Case, key: str, value: Tensor) -> Tensor:
    """(.., H, M) as the case stores it, (.., M, H)."""
    return value.transpose(-1, -2)


@pytest.fixture
def tensors() -> list[Tensor]:
    torch.manual_seed(0)
    return [
        x.requires_grad_()
        for x in (
            torch.randn(6, 4, 5, 8),
            torch.randn(2, 2, 9, 8),
            torch.randn(2, 2, 9, 8),
            torch.randn(6, 2, 7, 8),
            torch.randn(6, 2, 7, 8),
        )
    ]


@pytest.mark.parametrize("causal", [False, True])
def test_a_prefix_is_like_keys_in_front(tensors, causal):
    q, prefix_k, prefix_v, k, v = tensors
    got = shared_prefix_attention(*tensors, causal=causal, return_lse=True)
    joined = [torch.cat([p.repeat_interleave(3, 0), x], 2) for p, x in ((prefix_k, k), (prefix_v, v))]
    want = attention(q, *joined, causal=causal, return_lse=True)
    torch.testing.assert_close(got, want)
    grads = [torch.autograd.grad(o.square().sum() + lse.sum(), tensors) for o, lse in (got, want)]
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)


def test_prefixes_must_divide_the_batch(tensors):
    q, prefix_k, prefix_v, k, v = tensors
    with pytest.raises(ValueError, match="5 sequences cannot share 2 prefixes"):
        shared_prefix_attention(q[:5], prefix_k, prefix_v, k[:5], v[:5])
    with pytest.raises(ValueError, match="6 sequences cannot share 0 prefixes"):
        shared_prefix_attention(q, prefix_k[:0], prefix_v[:0], k, v)
    assert shared_prefix_attention(q[:0], prefix_k, prefix_v, k[:0], v[:0]).shape == (0, 4, 5, 8)
