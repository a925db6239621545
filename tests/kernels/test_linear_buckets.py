"""Scatterbrain on hashed buckets: golden parity, the matrix of weights, limits, hashing, export."""

import pytest
import torch
from torch import Tensor

from tests.golden.cases import Case, adapter
from tests.kernels.harness import check_compiled, check_exported
from zoo.kernels.attention import attention
from zoo.kernels.linear import bucketed_scatterbrain_attention, equal_norms, hash_orders
from zoo.kernels.linear.buckets import bucket_support
from zoo.kernels.linear.reference import scatterbrain_weights, weighted_mean


@adapter("scatterbrain", "XBOXPLUS", repeats=("dim",))
def golden_equal_norms(case: Case) -> dict[str, Tensor]:
    q, k = equal_norms(case.input["query"], case.input["key"])
    return {"output/query_t": q, "output/key_t": k, "output/inner": q @ k.mT}


@adapter("scatterbrain", "SBSmyrfAttention", repeats=("d_head", "n_hashes", "nb_features"))
def golden_hashed(case: Case) -> dict[str, Tensor]:
    q, k, v = (case.input[key].transpose(1, 2) for key in ("query", "key", "value"))
    projection, scale = case.param["projection_matrix"], case.arguments["softmax_temp"]
    orders = tuple(case.input[f"{key}_positions"].unflatten(1, q.shape[:2]) for key in "qk")
    sizes = (case.arguments["q_cluster_size"], case.arguments["k_cluster_size"])
    support = bucket_support(orders, sizes=sizes)
    weights = scatterbrain_weights(q, k, projection, support, scale=scale)
    y = bucketed_scatterbrain_attention(q, k, v, projection, orders, sizes=sizes, scale=scale)
    return {
        "output/out": y.transpose(1, 2),
        "output/attn": weights / weights.sum(-1, keepdim=True),
        "output/attn_unnormalised": weights,
        "output/low_rank_unnormalised": scatterbrain_weights(q, k, projection, torch.zeros_like(support), scale=scale),
        "output/support": support,
    }


def inputs(queries: int, keys: int, *, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, queries, 6), (2, 3, keys, 6), (2, 3, keys, 5), (4, 6))
    q, k, v, projection = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return (size * q).requires_grad_(), (size * k).requires_grad_(), v.requires_grad_(), projection


@pytest.mark.parametrize(("queries", "keys", "sizes"), [(24, 24, (4, 4)), (23, 45, (5, 9)), (1, 1, (3, 3))])
@pytest.mark.parametrize("hashes", [1, 3])
def test_is_the_weighted_mean(queries, keys, sizes, hashes):
    *variables, projection = inputs(queries, keys)
    q, k, v = variables
    orders = hash_orders(q, k, hashes, generator=torch.Generator().manual_seed(1))
    support = bucket_support(orders, sizes=sizes)
    want = weighted_mean(scatterbrain_weights(q, k, projection, support, scale=0.3), v)
    got = bucketed_scatterbrain_attention(q, k, v, projection, orders, sizes=sizes, scale=0.3)
    torch.testing.assert_close(got, want)
    weight = torch.randn_like(want)
    grads = [torch.autograd.grad((y * weight).sum(), variables) for y in (got, want)]
    torch.testing.assert_close(*grads)


def test_one_bucket_is_softmax():
    q, k, v, projection = inputs(12, 15)
    orders = hash_orders(q, k, 2)
    torch.testing.assert_close(
        bucketed_scatterbrain_attention(q, k, v, projection, orders, sizes=(12, 15)), attention(q, k, v)
    )


def test_survives_scores_beyond_the_range_of_exp():
    q, k, v, projection = (x.detach().float() for x in inputs(23, 23, size=30.0))
    y = bucketed_scatterbrain_attention(q, k, v, projection, hash_orders(q, k, 2), sizes=(4, 4))
    assert y.isfinite().all()
    assert (y.abs() <= v.abs().max() + 1e-3).all()


def test_equal_norms_keep_inner_products():
    q, k, _, _ = inputs(7, 9)
    longer_q, longer_k = equal_norms(q, k)
    torch.testing.assert_close(longer_q @ longer_k.mT, q @ k.mT)
    lengths = torch.cat([longer_q.norm(dim=-1), longer_k.norm(dim=-1)], -1)
    torch.testing.assert_close(lengths, lengths[..., :1].expand_as(lengths))


def test_buckets_hold_near_keys():
    keys = torch.randn(1, 1, 256, 8, generator=torch.Generator().manual_seed(0))
    orders = hash_orders(keys, keys, 4, generator=torch.Generator().manual_seed(1))
    support = bucket_support(orders, sizes=(16, 16))[0, 0].float()
    similar = torch.nn.functional.normalize(keys[0, 0], dim=-1)
    similar = (similar @ similar.mT).fill_diagonal_(0.0)
    assert float((similar * support).sum() / support.sum()) > float(similar.mean()) + 0.05


def test_compiles_to_one_graph_and_exports_in_aten():
    q, k, v, projection = (x.detach().float() for x in inputs(23, 23))

    def call(q: Tensor, k: Tensor, v: Tensor, q_order: Tensor, k_order: Tensor) -> Tensor:
        return bucketed_scatterbrain_attention(q, k, v, projection, (q_order, k_order), sizes=(4, 4))

    given = (q, k, v, *hash_orders(q, k, 2))
    check_compiled(call, *given)
    check_exported(call, *given)


def test_different_numbers_of_buckets_are_named():
    q, k, v, projection = inputs(24, 24)
    with pytest.raises(ValueError, match="6 of queries, 4 of keys"):
        bucketed_scatterbrain_attention(q, k, v, projection, hash_orders(q, k, 1), sizes=(4, 6))


def test_shapes_that_do_not_fit_are_named():
    q, k, v, projection = inputs(24, 24)
    with pytest.raises(ValueError, match="do not fit together"):
        bucketed_scatterbrain_attention(q, k[:1], v[:1], projection, hash_orders(q, k, 1), sizes=(4, 4))
