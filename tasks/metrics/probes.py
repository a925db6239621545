"""Small networks that ask what a representation tells, trained side by side."""

import torch
from torch import Tensor
from torch.nn import functional as F


class Probes:
    """P networks of one hidden ReLU layer, each from its own input (N, D) to Q logits, trained together by Adam."""

    def __init__(self, inputs: Tensor, targets: Tensor, *, hidden: int, epochs: int, seed: int, lr: float = 1e-2):
        """inputs (P, N, D); targets (N, Q) in [0, 1] with binary cross-entropy, or (N,) classes with cross-entropy."""
        generator = torch.Generator().manual_seed(seed)
        probes, samples, width = inputs.shape
        self.mean = inputs.mean(1, keepdim=True)
        self.scale = inputs.std(1, keepdim=True, correction=min(1, samples - 1)).clamp_min(1e-6)
        classes = targets.dim() == 1
        outputs = int(targets.max()) + 1 if classes else targets.shape[1]
        self.weights = [
            torch.randn(probes, width, hidden, generator=generator) * (2 / width) ** 0.5,
            torch.zeros(probes, 1, hidden),
            torch.randn(probes, hidden, outputs, generator=generator) / hidden**0.5,
            torch.zeros(probes, 1, outputs),
        ]
        self.weights = [value.to(inputs).requires_grad_() for value in self.weights]
        optimiser = torch.optim.Adam(self.weights, lr=lr)
        for _ in range(epochs):
            for rows in torch.randperm(samples, generator=generator).split(128):
                logits = self(inputs[:, rows])
                wanted = targets[rows].to(logits.device)
                if classes:
                    loss = F.cross_entropy(logits.flatten(0, 1), wanted.repeat(probes), reduction="sum")
                else:
                    spread = wanted.to(logits).expand_as(logits)
                    loss = F.binary_cross_entropy_with_logits(logits, spread, reduction="sum")
                optimiser.zero_grad()
                (loss / len(rows)).backward()
                optimiser.step()
        self.weights = [value.detach() for value in self.weights]

    def __call__(self, inputs: Tensor) -> Tensor:
        """(P, N, D) -> (P, N, Q) logits."""
        first, first_bias, second, second_bias = self.weights
        hidden = ((inputs - self.mean) / self.scale) @ first + first_bias
        return hidden.relu() @ second + second_bias


def halves(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two random halves of the samples: one to fit, one to test."""
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    return order[: samples // 2], order[samples // 2 :]
