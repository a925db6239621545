"""What every model of the zoo accepts and returns.

    images (B, C, H, W) --backbone--> features (B, D) --bottleneck--> latent --head--> Output

A model is a `ZooModel` with a `backbone`; `forward` takes images, `forward_features` takes what the backbone returns,
and both give the same result. `loss` holds the method's terms by their names in the paper.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from zoo.models.backbone import Backbone

Batch = dict[str, Tensor]
"""What a data loader yields: `image` (B, C, H, W) or `features` (B, ...), `label` (B,) int64 or (B, T) float,
`index` (B,) position in the split, and where the data have them `concepts` (B, K) in [0, 1]."""


@dataclass(frozen=True)
class Intervention:
    """What a person sets: `values` in [0, 1] (1 = present) wherever `mask` is true; both (K,) or (B, K).

    A mask without a true entry leaves a model's output bit-identical to no intervention.
    """

    mask: Tensor
    values: Tensor

    def apply(self, concepts: Tensor, present: Tensor | float = 1.0, absent: Tensor | float = 0.0) -> Tensor:
        """Replace the masked entries of `concepts` (B, K) by `absent + value * (present - absent)`."""
        values = self.values.to(concepts)
        return torch.where(self.mask.to(concepts.device), absent + values * (present - absent), concepts)


@dataclass
class Output:
    """What a model returns for a batch.

    prediction: (B, M) class logits, or (B, T) values in regression.
    concepts: (B, K) in [0, 1], in the order of `model.concept_names`, as predicted: an intervention does not change it.
    latent: (B, ...) what the head sees, after an intervention.
    code: what crosses the link of a split model, as the integers or reals that are sent.
    extras: further named tensors that the loss or a metric needs (`concept_logits`, `mean`, `logvar`, ...).
    """

    prediction: Tensor
    concepts: Tensor | None = None
    latent: Tensor | None = None
    code: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One stage of a training that has several.

    trains: prefixes of the parameter names that learn; modules without a learning parameter stay in evaluation mode.
    loss: name of the model's method `(output, batch) -> {"loss": ..., term: ...}` that is minimised; a term called
        `acc`, of a part that is not the model's own prediction yet, is shown in the place of its accuracy.
    share: this stage's share of `trainer.max_epochs`, relative to the other stages (each gets at least one epoch).
    lr_scale: factor on the task's learning rate.
    """

    name: str = "train"
    trains: tuple[str, ...] = ("",)
    loss: str = "loss"
    share: float = 1.0
    lr_scale: float = 1.0


class ZooModel(nn.Module):
    """Base of all models: images or cached features in, `Output` out.

    Constructor arguments named like a field of `zoo.data.contract.Facts` (`num_outputs`, `concept_names`,
    `concept_groups`, `in_channels`, `image_size`, `task`) are filled from the data unless the configuration gives them;
    `backbone` is filled with the configured `zoo.models.backbone.Backbone`.

    Class attributes:
        training_only: prefixes of state_dict keys that inference does not need (a teacher); they stay out of
            `model.safetensors`.
        costly: a prediction is an optimisation, many times slower than one pass: corrections are then measured on fewer
            images.
        instead_of_training: of a model that predicts no classes or values, so that `train` refuses it with this line.
    """

    instead_of_training: ClassVar[str] = ""
    training_only: ClassVar[tuple[str, ...]] = ()
    costly: ClassVar[bool] = False
    concept_names: tuple[str, ...] = ()
    backbone: "Backbone"
    recipe: dict[str, Any]
    """How to construct the model again; noted by the builder."""
    info: Any
    """Classes, concepts and preprocessing of a model that `zoo.load` returned (`zoo.artifact.ModelInfo`)."""

    def __new__(cls, *_: Any, **arguments: Any) -> Self:
        """Refuse a word that is none of an argument's choices; most models would take it for the last of them.

        Raises:
            ValueError: the argument, the word and the choices.
        """
        for name, choices in choices_of(cls).items():  # type: ignore[arg-type]
            if name in arguments and arguments[name] not in choices:
                known = ", ".join(str(choice) for choice in choices)
                raise ValueError(f"{cls.__name__}: unknown {name} {arguments[name]!r}: choose one of {known}")
        return super().__new__(cls)

    def forward(self, images: Tensor, intervene: Intervention | None = None) -> Output:
        """images (B, C, H, W), normalised by the model's preprocessing."""
        return self.forward_features(self.backbone(images), intervene)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features: what `self.backbone` returns for the images, usually (B, D)."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward_features")

    def forward_batch(self, batch: Batch, intervene: Intervention | None = None) -> Output:
        """The entry that the batch calls for: cached features where it holds them, images otherwise."""
        if "features" in batch:
            return self.forward_features(batch["features"], intervene)
        return self(batch["image"], intervene)

    def with_features(self, batch: Batch) -> Batch:
        """The batch with the backbone's features in place of its images; cached features stay as they are."""
        rest = {key: value for key, value in batch.items() if key != "image"}
        return rest if "features" in rest else rest | {"features": self.backbone(batch["image"])}

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The method's terms by name, and their weighted sum as `loss`."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def diagnostics(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """What is worth measuring beside the loss (rate in bits, bytes on the link): tensors, averaged over a split,
        logged as `val/<name>` and shown in the result."""
        return {}

    def stages(self) -> list[Stage]:
        """The stages of training, in order; none where everything is fitted by `prepare`."""
        return [Stage()]

    def check(self, datamodule: Any) -> list[str]:
        """What is wrong with what the model is to learn from, beside the data's own mistakes: a line each, found before
        anything slow starts."""
        return []

    def prepare(self, datamodule: Any) -> None:
        """Fit what is not trained by gradient (concept vectors, codebooks); the result lives in buffers."""

    def finish_stage(self, stage: Stage, datamodule: Any) -> None:
        """Called with the best weights of each stage: what has to be read off a trained network (percentiles of its
        logits, the range of its code)."""

    def fitted_arguments(self) -> dict[str, Any]:
        """Constructor arguments that `prepare` has changed, so that the saved model can be rebuilt (plain values)."""
        return {}

    def remarks(self) -> dict[str, Any]:
        """What `prepare` did that a reader of the saved model should know, by name (plain values); kept in its
        description under `extra`."""
        return {}

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map the keys of the authors' released checkpoint to ours (`zoo convert`)."""
        return state


def choices_of(model: type) -> dict[str, tuple[Any, ...]]:
    """The arguments of a model's constructor that are annotated as a Literal, and what they may be; none where an
    annotation names what is imported for type checkers alone."""
    try:
        hints = get_type_hints(model.__init__)  # type: ignore[misc]
    except NameError:
        return {}
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
