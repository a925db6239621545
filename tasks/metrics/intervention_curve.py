"""Task accuracy as a person corrects more and more concepts (Koh et al., ICML 2020, arXiv 2007.04612, section 5)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.models.contract import Batch, Intervention, Output, ZooModel
from zoo.tasks.metrics.plots import curve
from zoo.tasks.metrics.settings import keep_apart

Policy = Literal["random", "uncertain", "given"]


class InterventionCurve(Metric):
    """Accuracy with 0, 1, ..., G groups of concepts set to the truth, or all of them to the untruth.

    groups: indices of the concepts that are set together; correct concepts one by one with groups of one.
    policy: which group comes next: "random", `trials` orders for all samples; "uncertain", for every sample the group
        whose concepts are nearest to 1/2; "given", the order of `groups`.
    wrong: set concepts to 1 - truth. A model that does not fall then does not heed its concepts.
    points: at how many numbers of groups, evenly spread, it is measured at most (None: at all of them).

    `compute` gives `accuracy` and `std` over trials at `counts` groups, `mean` of the curve, and `gain`, its end minus
    its start. (The released code of Koh et al. reports the maximum over trials.)
    """

    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        *,
        policy: Policy = "random",
        wrong: bool = False,
        trials: int = 5,
        points: int | None = None,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(**options)
        if points is not None and points < 2:
            raise ValueError(f"points={points}: a curve has at least 2, its start and its end")
        self.groups, self.policy, self.wrong = [list(group) for group in groups], policy, wrong
        generator = torch.Generator().manual_seed(seed)
        count = len(self.groups)
        steps = count if points is None else min(points - 1, count)
        self.counts = sorted({round(index * count / max(steps, 1)) for index in range(steps + 1)})
        self.orders = [torch.arange(count)]
        if policy == "random":
            self.orders = [torch.randperm(count, generator=generator) for _ in range(trials)]
        self.add_state("right", torch.zeros(len(self.orders), len(self.counts)), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        keep_apart(self, self.groups, policy, wrong, trials, points, seed)

    @torch.no_grad()
    def update(self, model: ZooModel, batch: Batch) -> None:
        """batch: with `concepts` and class labels; the backbone sees its images once."""
        batch = model.with_features(batch)
        plain = model.forward_batch(batch)
        values = 1 - batch["concepts"] if self.wrong else batch["concepts"]
        for trial, order in enumerate(self.orders):
            ranks = self.ranks(plain, order)
            for place, corrected in enumerate(self.counts):
                mask = self.concepts_of(ranks < corrected, values.shape[1])
                output = model.forward_batch(batch, Intervention(mask, values)) if corrected else plain
                self.right[trial, place] += (output.prediction.argmax(1) == batch["label"]).sum()
        self.total += len(values)

    def ranks(self, output: Output, order: Tensor) -> Tensor:
        """(B, G): when each group's turn comes."""
        assert output.concepts is not None
        if self.policy != "uncertain":
            return order.argsort().to(output.concepts.device).expand(len(output.concepts), -1)
        certainty = (output.concepts - 0.5).abs()
        by_group = torch.stack([certainty[:, group].mean(1) for group in self.groups], dim=1)
        return by_group.argsort(1).argsort(1)

    def concepts_of(self, chosen: Tensor, count: int) -> Tensor:
        """(B, G) chosen groups -> (B, K) chosen concepts."""
        mask = torch.zeros(len(chosen), count, dtype=torch.bool, device=chosen.device)
        for index, group in enumerate(self.groups):
            mask[:, group] |= chosen[:, index, None]
        return mask

    def compute(self) -> dict[str, Tensor]:
        curves = self.right / self.total
        accuracy = curves.mean(0)
        spread = curves.std(0, correction=0)
        return {"accuracy": accuracy, "std": spread, "mean": accuracy.mean(), "gain": accuracy[-1] - accuracy[0]}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        value = self.compute() if val is None else val
        labels = ("groups set wrongly" if self.wrong else "groups corrected", "accuracy")
        return curve(self.counts, value["accuracy"], labels=labels, spread=value["std"], ax=ax)
