"""Real images to check and calibrate an exported model with, as the model sees them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.data.errors import DataError
from zoo.data.transforms import Transform
from zoo.errors import UserError
from zoo.trained import Trained, data_of


@dataclass
class RealImages:
    """test (N, C, H, W) with labels (N,) or None; train for calibration, or None; where they come from."""

    test: Tensor
    labels: Tensor | None
    train: Tensor | None
    source: str


def real_images(trained: Trained, words: list[str], *, test: int, train: int) -> RealImages:
    """Up to `test` images of the test split and `train` of the training split, spread evenly; where the run's data are
    gone, scikit-learn's handwritten digits, without labels.

    Raises:
        UserError: the data are gone and the model reads no images; data given in `words` that do not fit.
    """
    try:
        datamodule = data_of(trained, words)
        datamodule.setup()
    except (UserError, DataError) as error:
        if words or tuple(trained.info.preprocessing["image_size"]) == (0, 0):
            raise
        why = str(error).splitlines()[0]
        pixels = _digits(trained, test)
        return RealImages(pixels, None, None, f"{test} of scikit-learn's digits, the run's data being gone ({why})")
    tests, trains = _some(datamodule.test_set, test), _some(datamodule.train_set, train)
    labels = [torch.as_tensor(item["label"]) for item in tests]
    return RealImages(
        torch.stack([item["image"] for item in tests]),
        torch.stack(labels),
        torch.stack([item["image"] for item in trains]) if trains else None,
        f"{len(tests)} images of the test split of {trained.info.data}",
    )


def _some(items, count: int) -> list:
    """Up to `count` items of a split, spread evenly."""
    if not count:
        return []
    return [items[index] for index in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int).tolist()]


def _digits(trained: Trained, count: int) -> Tensor:
    from sklearn.datasets import load_digits

    pixels = np.rint(load_digits().images[:count] * (255 / 16)).astype(np.uint8)
    transform = Transform(trained.info.transform)
    return torch.stack([transform(image) for image in pixels])
