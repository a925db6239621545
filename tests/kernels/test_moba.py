"""MoBA: golden parity, and its limits, where it is plain attention."""

import pytest
import torch
from torch import Tensor

from tests.golden.cases import Case, adapter
from zoo.kernels.attention import attention
from zoo.kernels.moba import moba_attention, route


@adapter("moba", "moba_attention", repeats=("head_dim", "heads"))
def golden_moba(case: Case) -> dict[str, Tensor]:
    """The case packs sequences as (tokens, heads, dim); each is attended to by itself."""
    arguments, result = case.arguments, {}
    variables = {key: case.input[key].requires_grad_() for key in "qkv"}
    settings = {"chunk": arguments["chunk"], "topk": arguments["topk"]}
    for mode in ("causal", "full"):
        o, lse, index = [], [], []
        for q, k, v in zip(*(x.split(arguments["lengths"]) for x in variables.values())):
            parts = [x.transpose(0, 1)[None] for x in (q, k, v)]
            keywords = {**settings, "causal": mode == "causal"}
            part, its_lse = moba_attention(*parts, scale=arguments["softmax_scale"], return_lse=True, **keywords)
            o.append(part[0].transpose(0, 1))
            lse.append(its_lse[0].transpose(0, 1))
            index.append(route(*parts[:2], **keywords)[0].transpose(0, 1))
        joined = torch.cat(o)
        result[f"output/o_{mode}"] = joined
        result[f"output/lse_{mode}"] = torch.cat(lse)
        result[f"output/topk_index_{mode}"] = torch.cat(index)
        names = {f"grad/{key}_{mode}": value for key, value in variables.items()}
        result |= case.gradients((joined * case.input["do"]).sum(), names)
    return {**result, "output/o_upstream_fp32": result["output/o_causal"]}


def qkv(length: int = 20) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, heads, length, 8) for heads in (4, 2, 2)]


@pytest.mark.parametrize("causal", [False, True])
def test_enough_blocks_are_plain_attention(causal):
    got = moba_attention(*qkv(), chunk=6, topk=4, causal=causal)
    torch.testing.assert_close(got, attention(*qkv(), causal=causal))


def test_one_causal_block_is_attention_within_the_block():
    q, k, v = qkv()
    got = moba_attention(q, k, v, chunk=5, topk=1, causal=True)
    parts = [attention(*(x[:, :, a : a + 5] for x in (q, k, v)), causal=True) for a in range(0, 20, 5)]
    torch.testing.assert_close(got, torch.cat(parts, 2))


def test_blocks_that_swap_places_swap_their_indices():
    q, k, _ = qkv()
    order = torch.tensor([2, 0, 3, 1])
    moved = k.unflatten(2, (4, 5))[:, :, order].flatten(2, 3)
    assert torch.equal(order[route(q, moved, chunk=5, topk=2).long()], route(q, k, chunk=5, topk=2).long())


def test_missing_blocks_are_minus_one_and_lengths_must_agree():
    q, k, _ = qkv()
    assert (route(q, k, chunk=10, topk=3)[..., 2] == -1).all()
    with pytest.raises(ValueError, match="as many queries as keys"):
        route(q[:, :, :3], k, chunk=5, topk=1, causal=True)


@pytest.mark.parametrize("causal", [False, True])
def test_an_empty_sequence_of_a_packed_batch_has_an_empty_output(causal):
    q, k, v = (x.requires_grad_() for x in qkv(21))
    settings = {"chunk": 5, "topk": 2, "causal": causal}
    parts = [moba_attention(*part, **settings) for part in zip(*(x.split([9, 0, 12], 2) for x in (q, k, v)))]
    assert [part.shape for part in parts] == [(2, 4, 9, 8), (2, 4, 0, 8), (2, 4, 12, 8)]
    empty = [x[:, :, :0] for x in (q, k, v)]
    o, lse = moba_attention(*empty, **settings, return_lse=True)
    assert (o.shape, lse.shape) == ((2, 4, 0, 8), (2, 4, 0))
    assert route(*empty[:2], **settings).shape == (2, 4, 0, 2)
    torch.cat(parts, 2).sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_without_keys_nothing_is_chosen_and_the_output_is_zero():
    q, k, v = qkv()
    none = [x[:, :, :0] for x in (k, v)]
    assert (route(q, none[0], chunk=5, topk=2) == -1).all()
    assert torch.equal(moba_attention(q, *none, chunk=5, topk=2), torch.zeros_like(q))


@pytest.mark.parametrize(("chunk", "topk"), [(0, 1), (-4, 1), (5, 0), (5, -1)])
def test_no_keys_of_a_block_and_no_blocks_are_refused(chunk, topk):
    with pytest.raises(ValueError, match=f"chunk and topk must be positive, not {chunk} and {topk}"):
        moba_attention(*qkv(), chunk=chunk, topk=topk)
