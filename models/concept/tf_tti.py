"""Training-free test-time improvement of a concept bottleneck (TF-TTI): He et al., MICCAI 2025, arXiv 2506.18070.

A model with concepts c and a linear head y = W c + b meets a new domain (another stain, camera, colour). A few images
of each class, with class labels only, tell which concepts mislead, without any gradient step:

1. mask: of the images of class t taken for class p, concept k pushes the wrong way by r_k = mean (W_pk - W_tk) c_k; the
   largest are masked until the mean wrong margin is gone, never one whose loss costs support accuracy;
2. amplify: concepts that speak for a class, W_tk - max over others > 0, but are weaker on the new images of that class
   than on its training images, are multiplied by the ratio, at most `max_gain`;
3. both limits are chosen by leave-one-out accuracy on the support images; where nothing helps, nothing is changed.

The abstract says as much as points 1 and 2; the formulas are a reconstruction, since neither the authors' code nor the
full text could be read. The trained model stays as it is, and on its own domain it answers bit for bit as before.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.models.backbone import Backbone
from zoo.models.concept.base import ConceptModel, Groups
from zoo.models.concept.cbm import CBM
from zoo.models.concept.domain_repair import ClassStatistics, Repair, Support, class_statistics, fit_repair
from zoo.models.contract import Batch, Intervention, Output, Stage


def head_weights(model: ConceptModel, *, width: int) -> Tensor:
    """W (M, K) of a head that is linear in its `width` inputs, the concepts first.

    Raises:
        ValueError: the head is not linear, or it reads more than the concepts.
    """
    ones = torch.ones(2, width, device=model.concept_weights.device)
    once, twice = model.contributions(Output(ones, latent=ones * torch.tensor([[1.0], [2.0]]).to(ones)))
    if width != len(model.concept_names) or not torch.allclose(2 * once, twice, rtol=1e-4, atol=1e-6):
        raise ValueError(
            f"{type(model).__name__} has no linear head on its concepts alone: its concepts cannot be masked"
        )
    return once.mT


@torch.no_grad()
def read_support(model: ConceptModel, batches: Iterable[Batch]) -> Support:
    """Run a trained model over labelled images of the new domain."""
    outputs = [(model.eval().forward_batch(batch), batch["label"]) for batch in batches]
    if not outputs:
        raise ValueError("there is no image of the new domain: give a folder with a few of each class")
    concepts = torch.cat([output.latent for output, _ in outputs if output.latent is not None])
    weight = head_weights(model, width=concepts.shape[1])
    prediction, labels = torch.cat([output.prediction for output, _ in outputs]), torch.cat([y for _, y in outputs])
    return Support(concepts, labels, weight, prediction - concepts @ weight.mT)


def repaired_latent(output: Output, repair: Repair, intervene: Intervention | None = None) -> Tensor:
    """What the head sees with the repair; a person's corrections stand."""
    assert output.latent is not None
    latent = repair.apply(output.latent)
    return latent if intervene is None else torch.where(intervene.mask.to(latent.device), output.latent, latent)


def repaired(model: ConceptModel, output: Output, repair: Repair, intervene: Intervention | None = None) -> Output:
    """The output of any model with a linear head as it is with the repair."""
    latent = repaired_latent(output, repair, intervene)
    weight = head_weights(model, width=latent.shape[1])
    assert output.latent is not None
    return replace(output, prediction=output.prediction + (latent - output.latent) @ weight.mT, latent=latent)


class TFTTI(CBM):
    """A concept bottleneck that keeps what its training images look like, and can be repaired for a new domain.

    Args:
        domain: "source" answers as trained; "target" applies the repair that `adapt` has fitted.
        max_masked, max_gain, speakers, mask_value: see `fit_repair`.
        Others: see `CBM`.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str],
        concept_groups: Groups = (),
        training: Literal["joint", "sequential", "independent"] = "joint",
        bottleneck: Literal["sigmoid", "logit", "relu"] = "sigmoid",
        concept_loss_weight: float = 1.0,
        domain: Literal["source", "target"] = "source",
        max_masked: float = 0.1,
        max_gain: float = 3.0,
        speakers: int = 3,
        mask_value: Literal["zero", "source_mean"] = "zero",
    ):
        super().__init__(
            backbone=backbone,
            num_outputs=num_outputs,
            concept_names=concept_names,
            concept_groups=concept_groups,
            training=training,
            bottleneck=bottleneck,
            concept_loss_weight=concept_loss_weight,
        )
        self.domain, concepts = domain, len(self.concept_names)
        self.max_masked, self.max_gain, self.speakers, self.mask_value = max_masked, max_gain, speakers, mask_value
        self.register_buffer("source_mean", torch.zeros(num_outputs, concepts))
        self.register_buffer("source_std", torch.zeros(num_outputs, concepts))
        for name, value in vars(Repair.identity(torch.zeros(concepts))).items():
            self.register_buffer(f"repair_{name}", value)

    @property
    def repair(self) -> Repair:
        return Repair(*(self.get_buffer(f"repair_{name}") for name in ("masked", "gain", "fill")))

    def finish_stage(self, stage: Stage, datamodule: Any) -> None:
        super().finish_stage(stage, datamodule)
        self.remember_source(datamodule)

    @torch.no_grad()
    def remember_source(self, datamodule: Any) -> None:
        """Keep the mean and deviation of each concept on each class of the training images."""
        device = self.concept_weights.device
        self.eval()
        outputs = [
            (super(TFTTI, self).forward_batch({key: value.to(device) for key, value in batch.items()}), batch["label"])
            for batch in datamodule.train_dataloader()
        ]
        latent = torch.cat([output.latent for output, _ in outputs if output.latent is not None])
        labels = torch.cat([labels for _, labels in outputs]).to(device)
        found = class_statistics(latent, labels, num_classes=self.num_outputs)
        self.get_buffer("source_mean").copy_(found.mean)
        self.get_buffer("source_std").copy_(found.std)

    def adapt(self, batches: Iterable[Batch]) -> Repair:
        """Fit the repair to a few labelled images of the new domain and switch to it; nothing else changes."""
        self.domain = "source"
        source = ClassStatistics(self.get_buffer("source_mean"), self.get_buffer("source_std"))
        found = fit_repair(
            read_support(self, batches),
            source,
            max_masked=self.max_masked,
            max_gain=self.max_gain,
            speakers=self.speakers,
            mask_value=self.mask_value,
        )
        for name, value in vars(found).items():
            self.get_buffer(f"repair_{name}").copy_(value)
        self.domain = "target"
        return found

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        output = super().forward_features(features, intervene)
        if self.domain == "source":
            return output
        latent = repaired_latent(output, self.repair, intervene)
        return replace(output, prediction=self.head(latent), latent=latent)

    def fitted_arguments(self) -> dict[str, Any]:
        return {"domain": self.domain}
