"""The image classification sets that torchvision knows by name, with their official splits."""

import contextlib
import hashlib
import io
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.data.contract import Facts, Preprocessing
from zoo.data.errors import DataError, ImageError
from zoo.data.module import ZooDataModule
from zoo.data.source import ArraySource, Source
from zoo.data.transforms import to_uint8

SPLIT_ARGUMENTS: dict[str, dict[str, dict[str, Any]]] = {
    **{
        name: {"train": {"train": True}, "test": {"train": False}}
        for name in ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST")
    },
    **{
        name: {"train": {"split": "train"}, "test": {"split": "test"}} for name in ("Food101", "GTSRB", "STL10", "SVHN")
    },
    **{
        name: {split: {"split": split} for split in ("train", "val", "test")}
        for name in ("DTD", "FGVCAircraft", "Flowers102")
    },
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
}
"""Name -> split -> what torchvision calls it."""

GREY = {"MNIST", "FashionMNIST", "KMNIST"}
SIZES = {"MNIST": 28, "FashionMNIST": 28, "KMNIST": 28, "CIFAR10": 32, "CIFAR100": 32, "SVHN": 32, "STL10": 96}
UPRIGHT = {"MNIST", "FashionMNIST", "KMNIST", "SVHN", "GTSRB"}
"""Sets whose classes a mirror would change."""


class TorchvisionDataModule(ZooDataModule):
    """A torchvision data set.

    Args:
        name: its class in torchvision.datasets.
        root: the folder that holds, or shall hold, its files in torchvision's layout.
        download: fetch what is absent.
    """

    def __init__(self, *, name: str, root: str = "datasets", download: bool = False, **base: Any):
        super().__init__(**base)
        if name not in SPLIT_ARGUMENTS:
            near = {known.lower(): known for known in SPLIT_ARGUMENTS}.get(name.lower())
            advice = f"did you mean {near}?" if near else f"choose one of {', '.join(sorted(SPLIT_ARGUMENTS))}"
            raise DataError(f"data.name={name}: not a torchvision set that the zoo knows; {advice}")
        self.set_name, self.root, self.download = name, Path(root).expanduser(), download
        self.mirrors = name not in UPRIGHT

    @property
    def facts(self) -> Facts:
        return self.class_facts(self.classes)

    @property
    def data_preprocessing(self) -> Preprocessing:
        channels, size = 1 if self.set_name in GREY else 3, SIZES.get(self.set_name, 224)
        return Preprocessing(image_size=(size, size), mean=(0.5,) * channels, std=(0.5,) * channels)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names where torchvision has them, numbers otherwise."""
        train = self._open("train")
        names = getattr(train, "classes", None)
        return tuple(map(str, names)) if names else tuple(str(index) for index in range(int(_labels(train).max()) + 1))

    def check(self) -> list[str]:
        if self.download:
            return []
        try:
            self._open("train")
        except DataError as error:
            return [str(error)]
        return []

    def sources(self) -> dict[str, Source]:
        return {split: as_source(self._open(split), self.set_name) for split in SPLIT_ARGUMENTS[self.set_name]}

    def _open(self, split: Literal["train", "val", "test"] | str) -> Any:
        import torchvision

        arguments = SPLIT_ARGUMENTS[self.set_name][split]
        constructor = getattr(torchvision.datasets, self.set_name)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return constructor(root=self.root, download=self.download, **arguments)
        except (RuntimeError, OSError, ValueError, ModuleNotFoundError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if self.download:
            raise DataError(
                f"data.name={self.set_name}: cannot be fetched into {self.root} ({reason}); check the network"
            )
        raise DataError(
            f"data.name={self.set_name}: no complete files below {self.root} ({reason}); "
            "give their folder as data.root, or set data.download=true"
        )


class TorchvisionSource(Source):
    """A data set whose pictures are read one at a time."""

    def __init__(self, dataset: Any, name: str):
        self.dataset, self.labels = dataset, _labels(dataset)
        self.names = [f"{name}/{index}" for index in range(len(self.labels))]

    def read(self, index: int) -> Any:
        try:
            return to_uint8(self.dataset[index][0])
        except (OSError, SyntaxError) as error:
            raise ImageError(f"{self.names[index]}: is damaged ({error}); fetch the data again") from None

    def fingerprint(self) -> str:
        root = Path(self.dataset.root)
        files = sorted((str(path), path.stat()) for path in root.rglob("*.*"))
        stats = [(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns) for name, status in files]
        return hashlib.blake2b(repr((stats, self.labels.tolist())).encode(), digest_size=16).hexdigest()


def as_source(dataset: Any, name: str) -> Source:
    """A torchvision data set as a source; one whose pictures lie in an array becomes that array."""
    images = getattr(dataset, "data", None)
    if images is None:
        return TorchvisionSource(dataset, name)
    images = np.asarray(images)
    if images.ndim == 4 and images.shape[1] == 3 and images.shape[3] != 3:
        images = images.transpose(0, 2, 3, 1)
    return ArraySource(images, _labels(dataset), names=[f"{name}/{index}" for index in range(len(images))])


def _labels(dataset: Any) -> np.ndarray:
    """torchvision keeps labels under several names."""
    for attribute in ("targets", "labels", "_labels"):
        if hasattr(dataset, attribute):
            return np.asarray(getattr(dataset, attribute), dtype=np.int64)
    for attribute in ("samples", "_samples"):
        if hasattr(dataset, attribute):
            return np.array([label for _, label in getattr(dataset, attribute)], dtype=np.int64)
    return np.array([int(dataset[index][1]) for index in range(len(dataset))], dtype=np.int64)
