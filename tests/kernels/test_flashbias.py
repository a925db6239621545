"""FlashBias: golden parity, exactness of exact factors, and the bound of truncated ones."""

import pytest
import torch
from torch import Tensor

from tests.golden.cases import Case, adapter
from zoo.kernels.attention import attention
from zoo.kernels.dispatch import INTERPRETED
from zoo.kernels.flashbias import alibi_factors, distance_factors, factored_bias_attention, svd_factors, window_bias

EXACT = torch.float32 if INTERPRETED else torch.float64
"""The widest that runs: kernels have no float64, and in it their golden cases would not reach them."""


def exact(case: Case) -> list[Tensor]:
    return [case.input[key].to(EXACT).requires_grad_() for key in "qkv"]


@adapter("flashbias", "alibi_attention", repeats=("batch", "head_dim", "heads", "rank"))
def golden_alibi(case: Case) -> dict[str, Tensor]:
    q, k, v = exact(case)
    slopes, keywords = case.input["slopes"], {"scale": case.arguments["softmax_scale"], "return_lse": True}
    causal, length = case.arguments["causal"], case.arguments["length"]
    phi_q, phi_k = alibi_factors(slopes, length)
    o, lse = factored_bias_attention(q, k, v, phi_q, phi_k, causal, **keywords)
    released = [x.clone().requires_grad_() for x in alibi_factors(slopes, length, released_sign=True)]
    o_released, lse_released = factored_bias_attention(q, k, v, *released, causal, **keywords)
    rank_one = phi_q[..., :1], phi_k[..., :1]
    _, lse_rank_one = factored_bias_attention(q, k, v, *rank_one, causal, **keywords)
    do = case.input["do"].to(EXACT)
    names = ("grad/q_bias_upstream_sign", "grad/k_bias_upstream_sign")
    return {
        "output/o": o,
        "output/lse": lse,
        "output/lse_rank1": lse_rank_one,
        "output/o_upstream_sign": o_released,
        "output/lse_upstream_sign": lse_released,
        "output/phi_q": released[0],
        "output/phi_k": released[1],
        **case.gradients((do * o).sum(), {"grad/q": q, "grad/k": k, "grad/v": v}),
        **case.gradients((do * o_released).sum(), dict(zip(names, released))),
    }


@adapter("flashbias", "distance_bias_attention", repeats=("batch", "dims", "head_dim", "heads", "length"))
def golden_distance(case: Case) -> dict[str, Tensor]:
    q, k, v = exact(case)
    x, alpha = case.input["x"], case.input["alpha"].requires_grad_()
    phi_q, phi_k = (factor.clone().requires_grad_() for factor in distance_factors(x))
    per_axis = distance_factors(x, per_axis=True)
    weighted = -alpha[:, None, None] * phi_q
    o, lse = factored_bias_attention(q, k, v, weighted, phi_k, scale=case.arguments["softmax_scale"], return_lse=True)
    variables = {"q": q, "k": k, "v": v, "alpha": alpha, "phi_q": phi_q, "phi_k": phi_k}
    do = case.input["do"].to(EXACT)
    return {
        "output/o": o,
        "output/lse": lse,
        "output/d2": phi_q @ phi_k.mT,
        "output/phi_q": phi_q,
        "output/phi_k": phi_k,
        "output/phi_q_per_axis": per_axis[0],
        "output/phi_k_per_axis": per_axis[1],
        **case.gradients((do * o).sum(), {f"grad/{key}": value for key, value in variables.items()}),
    }


@adapter("flashbias", "relative_position_svd", repeats=("batch", "head_dim", "heads", "smooth_table"))
def golden_svd(case: Case) -> dict[str, Tensor]:
    q, k, v = (x.detach() for x in exact(case))
    scale, ranks = case.arguments["softmax_scale"], case.arguments["ranks"]
    bias = window_bias(case.input["table"], case.arguments["window"])
    singular = torch.linalg.svdvals(bias)
    square = singular.square().cumsum(1)
    energy = torch.stack([square[:, rank - 1] / square[:, -1] for rank in ranks])
    o, lse = attention(q, k, v, bias, scale=scale, return_lse=True)
    errors: dict[str, list[Tensor]] = {"bias": [], "out": [], "fro": []}
    for rank in ranks:
        phi_q, phi_k, _ = svd_factors(bias, rank)
        difference = phi_q @ phi_k.mT - bias
        errors["bias"].append(difference.abs().amax((1, 2)))
        errors["fro"].append(difference.norm(dim=(1, 2)) / bias.norm(dim=(1, 2)))
        truncated = factored_bias_attention(q, k, v, phi_q, phi_k, scale=scale)
        errors["out"].append((truncated - o).abs().amax((0, 2, 3)))
    return {
        "output/bias": bias,
        "output/bias_last_rank": phi_q @ phi_k.mT,
        "output/energy": energy,
        "output/lse_exact": lse,
        "output/o_exact": o,
        "output/max_abs_bias_error": torch.stack(errors["bias"]),
        "output/max_abs_out_error": torch.stack(errors["out"]),
        "output/ranks": torch.tensor(ranks),
        "output/rel_fro_error": torch.stack(errors["fro"]),
        "output/singular_values": singular,
    }


@pytest.mark.parametrize("rank", [1, 4, 9, 25])
def test_the_stated_bound_holds(rank):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 25, 8).double()
    bias = window_bias(torch.randn(81, 3).double(), 5)
    phi_q, phi_k, bound = svd_factors(bias, rank)
    error = (factored_bias_attention(q, k, v, phi_q, phi_k) - attention(q, k, v, bias)).abs().amax((0, 2, 3))
    assert (error <= v.abs().amax() * bound + 1e-12).all()
    assert rank < 25 or bound.max() < 1e-9


def test_the_bound_is_that_of_the_largest_error_of_the_bias():
    """diag(3, 0.5, 0.25) without its two smaller values is wrong by 0.5 at most: e - 1; without the last by 0.25."""
    bias = torch.diag(torch.tensor([3.0, 0.5, 0.25]).double())[None]
    torch.testing.assert_close(svd_factors(bias, 1)[2], torch.tensor([1.718281828459045]).double())
    torch.testing.assert_close(svd_factors(bias, 2)[2], torch.tensor([0.6487212707001282]).double())


def test_a_constant_in_a_row_changes_nothing():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 6, 8)
    phi_q, phi_k = alibi_factors(torch.tensor([0.5, 0.25, 0.125]), 6)
    one = factored_bias_attention(q, k, v, phi_q[..., :1], phi_k[..., :1])
    torch.testing.assert_close(one, factored_bias_attention(q, k, v, phi_q, phi_k))


def test_a_table_of_another_window_is_refused():
    with pytest.raises(ValueError, match="a window of 4 needs a table of 49 rows, not 81"):
        window_bias(torch.zeros(81, 3), 4)
