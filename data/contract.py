"""What every data module of the zoo says about itself, and what an image goes through before a model sees it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Facts:
    """What a model has to know of its data; cheap to find out (no image is decoded).

    task: "classification" or "regression".
    num_outputs: number of classes, or of target columns.
    class_names: names of the classes or target columns, in the order of the labels.
    concept_names: names of the K concepts, empty where the data have none.
    concept_groups: group name -> indices of its concepts (mutually exclusive values of one attribute).
    in_channels, image_size: channels and (height, width) of the tensors a loader yields; (0, 0) for tables, whose
        rows are feature vectors of `in_channels` numbers.
    """

    task: Literal["classification", "regression"]
    num_outputs: int
    class_names: tuple[str, ...]
    in_channels: int
    image_size: tuple[int, int]
    concept_names: tuple[str, ...] = ()
    concept_groups: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image's tensor, or (C,) of a table's row."""
        return (self.in_channels, *(self.image_size if self.image_size != (0, 0) else ()))


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded uint8 image to the tensor a model sees: resize, centre crop, scale to [0, 1], normalise.

    image_size: (height, width) of the result. crop_pct: share of the resized shorter side that the crop keeps.
    interpolation: "bilinear", "bicubic" or "nearest". mean, std: per channel; their length is the number of channels
    (1 turns colour into grey, 3 repeats grey).
    """

    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    @property
    def channels(self) -> int:
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        tuples: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**tuples)
