"""LVSA, ZipVL and Re-ttention: golden parity and the identities that hold by construction."""

import torch
from torch import Tensor

from tests.golden.cases import Case, adapter
from zoo.kernels.attention import attention
from zoo.kernels.sparse_patterns import key_scores, keys_for, lvsa_pattern, reshaped_attention, statistics

NAMES = {"W": "window", "n_first": "first"}


@adapter("lvsa", "lvsa_pattern")
def golden_lvsa(case: Case) -> dict:
    rows = []
    for row in case.arguments["rows"]:
        keywords = {NAMES.get(key, key): value for key, value in row.items() if key != "T"}
        pattern = lvsa_pattern(row["T"], **keywords)
        rows.append(
            {
                "kfi": pattern.distance,
                "globals": list(pattern.anchors),
                "attended_counts": [len(seen) for seen in pattern.attended],
                "attended_first": list(pattern.attended[0]),
                "attended_middle": list(pattern.attended[row["T"] // 2]),
                "attended_last": list(pattern.attended[-1]),
                "sparsity": pattern.sparsity,
            }
        )
    return {"expected/rows": rows}


@adapter("zipvl", "zipvl", repeats=("head_dim", "heads", "length", "random_probes", "recent_probes"))
def golden_zipvl(case: Case) -> dict[str, Tensor]:
    q, k = case.input["q"].double(), case.input["k"].double()
    result = {}
    for causal in (True, False):
        for rows, probes in (("all", None), ("probe", case.input["probe_rows"])):
            scores = key_scores(q, k, causal=causal, probe_rows=probes)
            chosen = [keys_for(scores, tau) for tau in case.arguments["tau"]]
            suffix = f"{'causal' if causal else 'full'}_{rows}"
            result[f"output/accumulated_{suffix}"] = scores.accumulated
            result[f"output/normalized_{suffix}"] = scores.normalized
            result[f"output/count_{suffix}"] = torch.tensor([count for count, _ in chosen])
            result[f"output/order_{suffix}"] = chosen[0][1]
    return result


@adapter("rettention", "rettention", repeats=("batch_heads", "half_window", "head_dim", "length", "window_fraction"))
def golden_rettention(case: Case) -> dict[str, Tensor]:
    given = {key: value[None] for key, value in case.input.items() if key != "mask"}
    mask, k, v = case.input["mask"].bool(), given["k"], given["v"]
    kept = statistics(given["q_cached_step"], k, v, mask, (1, 1))
    after = reshaped_attention(given["q_next_step"], k, v, mask, (1, 1), kept)
    result = {
        "ratio": kept.ratio,
        "o_full": kept.dense,
        "residual": kept.rest,
        "o_sparse_reshaped": after - kept.rest,
        "o_next_with_residual": after,
    }
    return {f"output/{key}": value[0] for key, value in result.items()}


def test_reshaped_attention_is_exact_at_the_refresh():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 12, 8)
    blocks = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 1]]).bool()
    kept = statistics(q, k, v, blocks, (4, 4))
    torch.testing.assert_close(reshaped_attention(q, k, v, blocks, (4, 4), kept), attention(q, k, v))


def test_the_kept_share_grows_by_a_twenty_fifth_a_step():
    """Equal scores: half of the keys hold half of the softmax, 0.5 + 0.04 x 3 = 0.62 of it three steps later."""
    q = k = torch.zeros(1, 1, 4, 8)
    v = torch.tensor([1.0, 3.0, 5.0, 9.0]).view(1, 1, 4, 1).expand(-1, -1, -1, 8)
    visible = torch.tensor([[1, 1, 0, 0]]).bool()
    kept = statistics(q, k, v, visible, (4, 1))
    torch.testing.assert_close(kept.ratio, torch.full((1, 1, 4, 1), 0.5))
    for steps, share in ((0, 0.5), (1, 0.54), (3, 0.62)):
        after = reshaped_attention(q, k, v, visible, (4, 1), kept, steps=steps)
        torch.testing.assert_close(after, torch.full_like(q, share * 2.0 + (4.5 - 0.5 * 2.0)))
    faster = reshaped_attention(q, k, v, visible, (4, 1), kept, steps=2, growth=0.1)
    torch.testing.assert_close(faster, torch.full_like(q, 0.7 * 2.0 + 3.5))


def test_a_short_video_is_dense_and_a_long_one_keeps_its_budget():
    assert lvsa_pattern(21).sparsity == 0
    pattern = lvsa_pattern(84)
    assert pattern.sparsity > 0.5
    assert torch.equal(pattern.block_mask().sum(1), torch.tensor([len(seen) for seen in pattern.attended]))


def test_all_keys_are_kept_for_tau_one_and_few_where_attention_is_peaked():
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 20, 8).double()
    assert keys_for(key_scores(q, k), 1.0)[0] >= 19
    k[:, 3] = 50 * q.mean(1)
    assert keys_for(key_scores(q.mean(1, keepdim=True).expand_as(q), k), 0.9)[0] == 1
