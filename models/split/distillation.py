"""What a student learns from its teacher: feature hints (GHND) and softened labels (KD)."""

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["sum", "mean"]


def hint_terms(
    student: dict[str, Tensor],
    teacher: dict[str, Tensor],
    *,
    pairs: Iterable[tuple[str, str]],
    reduction: Reduction = "sum",
) -> Tensor:
    """Squared distances (P,) between the named feature maps of P (student, teacher) pairs.

    Generalised head network distillation (Matsubara & Levorato, arXiv 2007.15818, eq. 2) minimises their sum; head
    network distillation has the first pair alone. The published reduction "sum" grows with batch and resolution,
    "mean" does not.

    >>> hint_terms({"a": torch.ones(2, 3)}, {"b": torch.zeros(2, 3)}, pairs=[("a", "b")])
    tensor([6.])
    """
    return torch.stack([F.mse_loss(student[mine], teacher[its], reduction=reduction) for mine, its in pairs])


def kd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    temperature: float = 1.0,
    reduction: Literal["batchmean", "mean", "sum"] = "batchmean",
) -> dict[str, Tensor]:
    """alpha * CE(student, target) + (1 - alpha) * T^2 * KL(softmax(teacher / T) || softmax(student / T)), by its terms.

    Hinton et al., arXiv 1503.02531. student, teacher (B, M) logits, target (B,) labels. reduction: of KL, as torch has
    it ("mean" divides by M too); the cross entropy is summed for "sum" and averaged otherwise.
    """
    cross_entropy = F.cross_entropy(student, target, reduction="sum" if reduction == "sum" else "mean")
    soft_student = F.log_softmax(student / temperature, dim=1)
    soft_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = temperature**2 * F.kl_div(soft_student, soft_teacher, reduction=reduction, log_target=True)
    total = alpha * cross_entropy + (1 - alpha) * divergence
    return {"loss": total, "cross_entropy": cross_entropy, "distillation": divergence}
