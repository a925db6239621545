"""Where a concept's raw score lies when the concept is absent and when it is present.

Scores of text similarity or signed distance have no scale of their own. The range gives them one: a score at `absent`
is shown as 0, one at `present` as 1, and a person who sets a concept to 0 or 1 sets its score to these two values.
"""

import torch
from torch import Tensor, nn

from zoo.models.contract import Intervention


class ScoreRange(nn.Module):
    """Two scores for each of K concepts, (0, 1) until they are fitted."""

    absent: Tensor
    present: Tensor

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("absent", torch.zeros(count))
        self.register_buffer("present", torch.ones(count))

    @torch.no_grad()
    def fit(self, scores: Tensor, low: float = 0.05, high: float = 0.95) -> None:
        """Take the quantiles of the training scores (N, K): the nearest ranks, so that N * K is not limited."""
        last = len(scores) - 1
        ranks = [1 + round(share * last) for share in (low, high)]
        self.set(*(scores.kthvalue(rank, dim=0).values for rank in ranks))

    @torch.no_grad()
    def fit_labelled(self, scores: Tensor, present: Tensor) -> None:
        """Take the median training score (N, K) of the images without and with each concept, `present` (N, K); a
        concept that all or none of the images have keeps an empty range at 0."""
        nowhere = scores.new_full((), torch.nan)
        without, having = (torch.where(chosen, scores, nowhere).nanmedian(0).values for chosen in (~present, present))
        known = without.isfinite() & having.isfinite()
        self.set(*(torch.where(known, score, 0.0) for score in (without, having)))

    @torch.no_grad()
    def fit_sides(self, scores: Tensor) -> None:
        """Take the median training scores (N, K) below 0 and above it, and for a concept all of whose scores lie on one
        side the quantiles of `fit`."""
        self.fit(scores)
        outer = self.absent, self.present
        self.fit_labelled(scores, scores > 0)
        one_sided = self.absent == self.present
        self.set(*(torch.where(one_sided, wide, near) for wide, near in zip(outer, (self.absent, self.present))))

    @torch.no_grad()
    def set(self, absent: Tensor, present: Tensor) -> None:
        """Take given scores (K,)."""
        self.absent, self.present = absent.to(self.absent).clone(), present.to(self.present).clone()

    def unit(self, scores: Tensor) -> Tensor:
        """Scores (B, K) to [0, 1]; a concept whose range is empty is always 0."""
        span = self.present - self.absent
        return torch.where(span > 0, (scores - self.absent) / torch.where(span > 0, span, 1.0), 0.0).clamp(0, 1)

    def intervene(self, scores: Tensor, intervention: Intervention | None) -> Tensor:
        """The scores with a person's corrections, whose values are in [0, 1]."""
        return scores if intervention is None else intervention.apply(scores, self.present, self.absent)
