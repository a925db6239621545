"""What concept models share: their losses, their groups, and how much every concept speaks for every class.

Notation: B batch, K concepts, M classes.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.models.backbone import activation_named
from zoo.models.contract import Batch, Output, ZooModel
from zoo.models.task_loss import task_loss

Reduction = Literal["mean", "sum", "normalized_sum"]
Imbalance = Literal["none", "weight", "pos_weight"]
Groups = Sequence[tuple[str, Sequence[int]]]

NO_CONCEPTS = (
    "the data name no concepts: put concepts.csv or class_concepts.csv beside your classes, or take data that name "
    "some, such as data=digits or data=shapes"
)
NO_WORDS = "no concepts: give concepts=[...], or take data that name some"


class ConceptModel(ZooModel):
    """A model whose `head` reads K concepts.

    concept_groups: name and indices of concepts that are corrected together.
    imbalance: how rare concepts weigh in the concept loss, with r_k = negatives / positives of concept k in the
        training data: "pos_weight" scales the positives by r_k, so that both sides count alike; "weight" scales both
        by r_k, as the released code of Koh et al. does; "none".

    Raises:
        ValueError: the data have no concepts.
    """

    head: nn.Sequential
    concept_weights: Tensor

    def __init__(
        self,
        *,
        num_outputs: int,
        concept_names: Sequence[str],
        concept_groups: Groups = (),
        task: Literal["classification", "regression"] = "classification",
        imbalance: Imbalance = "none",
    ):
        super().__init__()
        if not concept_names:
            raise ValueError(NO_CONCEPTS)
        self.num_outputs, self.task, self.imbalance = num_outputs, task, imbalance
        self.concept_names = tuple(concept_names)
        self.concept_groups = complete_groups(self.concept_names, concept_groups)
        self.register_buffer("concept_weights", torch.ones(len(self.concept_names)))

    def prepare(self, datamodule: Any) -> None:
        """Count the concepts of the training data, where the loss weighs them."""
        if self.imbalance == "none":
            return
        share = torch.as_tensor(datamodule.train_set.concepts).float().mean(0)
        # a concept that is always or never there has no ratio; its entropy cannot be learnt either way
        usable = (share > 0) & (share < 1)
        ratio = torch.where(usable, (1 - share) / share.clamp_min(1e-12), 1.0)
        self.concept_weights.copy_(ratio)

    def concept_entropy(self, concept_logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of every concept, (B, K), weighted by `imbalance`."""
        if "concepts" not in batch:
            raise ValueError("the batch holds no concepts: this model learns from images with concept labels")
        wanted = batch["concepts"].to(concept_logits)
        if self.imbalance == "pos_weight":
            weights = self.concept_weights
            return F.binary_cross_entropy_with_logits(concept_logits, wanted, pos_weight=weights, reduction="none")
        return F.binary_cross_entropy_with_logits(concept_logits, wanted, reduction="none") * self.concept_weights

    def task_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        return task_loss(prediction, batch["label"], task=self.task)

    def contributions(self, output: Output) -> Tensor:
        """(B, K, M): how much every concept adds to every logit, weight x activation.

        With a linear head they sum, over all that the head reads, to the logit minus its bias. With a deeper head the
        weight is the gradient of the logit at this input.
        """
        assert output.latent is not None
        # the output may come out of inference mode, whose tensors refuse gradients
        with torch.inference_mode(False), torch.enable_grad():
            latent = output.latent.detach().clone().requires_grad_()
            prediction = self.head(latent)
            each = [torch.autograd.grad(logit.sum(), latent, retain_graph=True)[0] for logit in prediction.unbind(1)]
            products = torch.stack([latent.detach() * gradient for gradient in each], dim=2)
        return self.sum_by_concept(products)

    def sum_by_concept(self, products: Tensor) -> Tensor:
        """(B, L, M) per entry of the latent -> (B, K, M) per concept; here the first K entries are the concepts."""
        return products[:, : len(self.concept_names)]


def linear_contributions(output: Output, weight: Tensor) -> Tensor:
    """(B, K, M) of a linear head with `weight` (M, K) on the latent (B, K): weight x activation.

    They sum over concepts to the logits, but for a bias.
    """
    assert output.latent is not None
    return output.latent[:, :, None] * weight.T


def complete_groups(names: Sequence[str], groups: Groups) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The groups, and every concept that is in none as a group of its own.

    >>> complete_groups(["red", "blue", "round"], [("colour", [0, 1])])
    (('colour', (0, 1)), ('round', (2,)))
    """
    grouped = {index for _, members in groups for index in members}
    if beyond := sorted(index for index in grouped if not 0 <= index < len(names)):
        raise ValueError(f"concept_groups name the concepts {beyond}, but there are {len(names)}")
    alone = [(name, (index,)) for index, name in enumerate(names) if index not in grouped]
    return tuple((name, tuple(members)) for name, members in groups) + tuple(alone)


def reduce_concepts(entropy: Tensor, reduction: Reduction) -> Tensor:
    """(B, K) to a number: mean over samples, then mean or sum over concepts."""
    per_concept = entropy.mean(0)
    return per_concept.mean() if reduction == "mean" else per_concept.sum()


def label_head(
    inputs: int, outputs: int, *, hidden: Sequence[int] = (), activation: str = "LeakyReLU"
) -> nn.Sequential:
    """Linear layers with an activation between them; without hidden widths a single linear layer."""
    if any(width < 1 for width in hidden):
        raise ValueError(f"head_hidden={list(hidden)}: give widths of at least 1")
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), activation_named(activation)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
