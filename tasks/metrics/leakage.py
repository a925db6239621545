"""Leakage: what predicted concepts tell of the label beyond the true ones (Mahinpei et al., 2021, arXiv 2106.13314)."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from zoo.tasks.metrics.plots import bars
from zoo.tasks.metrics.probes import Probes, halves


class ConceptLeakage(Metric):
    """Accuracy of telling the label from what the head sees, minus that of telling it from the true concepts.

        leakage = acc(g(latent)) - acc(g(truth))

    g is a network of one hidden layer, fitted on half of the samples in `compute` and tested on the other half.
    `compute` gives `seen`, `truth` and their difference `leakage`. Concepts that say all of the label leave nothing to
    leak; a model that predicts its concepts badly has a leakage below 0.
    """

    full_state_update = False
    higher_is_better = False
    seen: list[Tensor]
    truth: list[Tensor]
    label: list[Tensor]

    def __init__(self, *, hidden: int = 64, epochs: int = 60, seed: int = 0, **options: Any):
        super().__init__(**options)
        self.settings = {"hidden": hidden, "epochs": epochs, "seed": seed}
        for name in ("seen", "truth", "label"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, latent: Tensor, truth: Tensor, label: Tensor) -> None:
        """latent: what the head sees, (B, ...); truth: the true concepts (B, K); label: (B,) classes."""
        self.seen.append(latent.detach().flatten(1).float())
        self.truth.append(truth.float())
        self.label.append(label)

    def compute(self) -> dict[str, Tensor]:
        label = dim_zero_cat(self.label)
        train, test = halves(len(label), self.settings["seed"])
        found = {}
        for name, parts in (("seen", self.seen), ("truth", self.truth)):
            with torch.inference_mode(False), torch.enable_grad():
                inputs, wanted = dim_zero_cat(parts).clone()[None], label.clone()
                probe = Probes(inputs[:, train], wanted[train], **self.settings)
                # a class that only the test half holds has no output
                found[name] = (probe(inputs[:, test])[0].argmax(1) == wanted[test]).float().mean()
        return found | {"leakage": found["seen"] - found["truth"]}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Both accuracies, whose difference is the leakage."""
        value = self.compute() if val is None else val
        names = ["from what the head sees", "from the true concepts"]
        return bars(torch.stack([value["seen"], value["truth"]]), names, label="accuracy of telling the label", ax=ax)
