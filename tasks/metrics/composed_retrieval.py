"""Figures of composed image retrieval, in percent, as FashionIQ, CIRR and CIRCO report them.

Wu et al., CVPR 2021, arXiv 1905.12794; Liu et al., ICCV 2021, arXiv 2108.04024; Baldrati et al., ICCV 2023, arXiv
2303.15247. Q queries, a gallery of G images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def ranks(similarity: Tensor, target: Tensor) -> Tensor:
    """0-based rank of the gallery images `target` (Q, T) in rows of similarity (Q, G); ties go to the lower index."""
    order = similarity.argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1).gather(1, target)


def share_within(rank: Tensor, k: int) -> float:
    return float((rank < k).double().mean()) * 100


def fashion_iq(similarity: Tensor, target: Tensor, *, at: Sequence[int] = (10, 50)) -> dict[str, float]:
    """Recall@k in percent, similarity (Q, G), target (Q,)."""
    rank = ranks(similarity, target[:, None])[:, 0]
    return {f"Recall@{k}": share_within(rank, k) for k in at}


def cirr(
    similarity: Tensor,
    target: Tensor,
    reference: Tensor,
    group: Tensor,
    *,
    at: Sequence[int] = (1, 5, 10, 50),
    group_at: Sequence[int] = (1, 2, 3),
) -> dict[str, float]:
    """recall@k without the reference image in the ranking, and group_recall@k among the group members (Q, 5) alone."""
    without = similarity.scatter(1, reference[:, None], -torch.inf)
    rank = ranks(without, target[:, None])[:, 0]
    members = without.gather(1, group)
    in_group = ranks(members, (group == target[:, None]).int().argmax(1, keepdim=True))[:, 0]
    recall = {f"recall@{k}": share_within(rank, k) for k in at}
    return recall | {f"group_recall@{k}": share_within(in_group, k) for k in group_at}


def circo(similarity: Tensor, targets: Tensor, *, at: Sequence[int] = (5, 10, 25, 50)) -> dict[str, float]:
    """mAP@k over all targets (Q, T), padded with -1, and recall@k of the first, in percent.

    AP@k = 1 / min(T, k) * sum over targets at rank r <= k of (targets up to r) / r.
    """
    valid = targets >= 0
    places = ranks(similarity, targets.clamp(min=0)).double().masked_fill(~valid, torch.inf) + 1
    places = places.sort(dim=-1).values
    precision = torch.arange(1, places.shape[1] + 1, device=places.device) / places
    scores = {}
    for k in at:
        average = (precision * (places <= k)).sum(1) / valid.sum(1).clamp(max=k)
        scores[f"mAP@{k}"] = float(average.mean()) * 100
    first = ranks(similarity, targets[:, :1])[:, 0]
    return scores | {f"recall@{k}": share_within(first, k) for k in at}
