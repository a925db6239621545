"""A frozen backbone is run once: its features take the pictures' place, in the same items, splits and order.

The features of a split lie in one safetensors file below `zoo_home()`, named by a hash of everything that they depend
on: the weights (`key`), the pictures and which of them the split holds, the preprocessing, and the torch release.
Another weight, file or crop is another name, so that a stale file is never read; a damaged one is computed again.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from zoo.data.contract import Facts, Preprocessing
from zoo.data.dataset import Split
from zoo.data.errors import DataError
from zoo.data.module import ZooDataModule
from zoo.data.paths import zoo_home

log = logging.getLogger(__name__)

Encoder = Callable[[Tensor], Tensor]


class FeatureSplit(Dataset):
    """The items of a split with `features` in place of `image`."""

    def __init__(self, split: Split, features: Tensor):
        self.split, self.features = split, features
        self.labels, self.concepts, self.names = split.labels, split.concepts, split.names

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"features": self.features[index], **self.split.annotations(index)}


class FeatureDataModule(ZooDataModule):
    """A view of a data module whose loaders yield features; everything else is the data module's own."""

    _ready: bool

    def __init__(self, datamodule: ZooDataModule, *, encode: Encoder, key: str, folder: Path):
        super().__init__(batch_size=datamodule.batch_size, num_workers=0, seed=datamodule.seed)
        self.datamodule, self.encode, self.key, self.folder = datamodule, encode, key, folder

    @property
    def facts(self) -> Facts:
        return self.datamodule.facts

    @property
    def data_preprocessing(self) -> Preprocessing:
        return self.datamodule.data_preprocessing

    @property
    def default_preprocessing(self) -> Preprocessing:
        return self.datamodule.default_preprocessing

    @property
    def preprocessing(self) -> Preprocessing:
        return self.datamodule.preprocessing

    def use_preprocessing(self, preprocessing: Any) -> None:
        raise DataError("the features are computed already: choose the preprocessing before the cache")

    @property
    def split_indices(self) -> dict[str, list[int]]:
        return self.datamodule.split_indices

    def check(self) -> list[str]:
        return self.datamodule.check()

    def raw(self, split: str, index: int) -> Any:
        return self.datamodule.raw(split, index)

    def item_name(self, split: str, index: int) -> str:
        return self.datamodule.item_name(split, index)

    def setup(self, stage: str | None = None) -> None:
        """Read or compute the features of all three splits, once."""
        if self._ready:
            return
        self.datamodule.setup(stage)
        for name in ("train", "val", "test"):
            split: Split = getattr(self.datamodule, f"{name}_set")
            setattr(self, f"{name}_set", FeatureSplit(split, self._features(split)))
        self._ready = True

    def _features(self, split: Split) -> Tensor:
        path = self.folder / f"{fingerprint(split, self.preprocessing, key=self.key)}.safetensors"
        features = read_features(path, len(split))
        if features is None:
            features = self._compute(split)
            write_features(path, features)
        return features

    def _compute(self, split: Split) -> Tensor:
        loader = DataLoader(split, batch_size=self.batch_size, num_workers=self.datamodule.num_workers)
        with torch.no_grad(), _evaluating(self.encode):
            return torch.cat([self.encode(batch["image"]).cpu() for batch in loader]).contiguous()


@contextlib.contextmanager
def _evaluating(encode: Encoder) -> Iterator[None]:
    """Evaluation mode, where the encoder is a module, and each of its modules back in the mode that it had."""
    modules = list(encode.modules()) if isinstance(encode, nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes):
            module.training = mode


def cache_features(
    datamodule: ZooDataModule, encode: Encoder, key: str, *, folder: str | Path | None = None
) -> FeatureDataModule:
    """The data module with a frozen encoder's features instead of images.

    Args:
        encode: images (B, C, H, W) -> features (B, ...); it moves the images to its device itself. A module is put into
            evaluation mode meanwhile.
        key: hash of the encoder's weights, architecture, precision and device.
        folder: of the files; None is `zoo_home() / "features"`.

    Raises:
        DataError: the training pictures are augmented, so that no two epochs have the same features.
    """
    if datamodule.augment:
        raise DataError("data.augment=true varies the pictures in each epoch: set it to false, or cache=off")
    return FeatureDataModule(
        datamodule, encode=encode, key=key, folder=Path(folder) if folder else zoo_home() / "features"
    )


def fingerprint(split: Split, preprocessing: Preprocessing, *, key: str) -> str:
    """Hash of everything that a split's features depend on."""
    parts = [key, split.source.fingerprint(), json.dumps(preprocessing.to_dict()), torch.__version__]
    indices = hashlib.blake2b(split.indices.tobytes(), digest_size=16).hexdigest()
    return hashlib.blake2b(json.dumps([*parts, indices]).encode(), digest_size=16).hexdigest()


def read_features(path: Path, size: int) -> Tensor | None:
    """The `size` features in a file, or None if it is absent or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            features, checksum = file.get_tensor("features"), (file.metadata() or {}).get("checksum")
    except (SafetensorError, OSError, ValueError) as error:
        log.warning("%s: damaged (%s), computed again", path, error)
        return None
    if len(features) != size or _checksum(features) != checksum:
        log.warning("%s: damaged (wrong checksum), computed again", path)
        return None
    return features


def write_features(path: Path, features: Tensor) -> None:
    """Write beside and rename; a disk that is full or read-only costs the cache, not the run."""
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        beside = Path(name)
        save_file({"features": features}, beside, metadata={"checksum": _checksum(features)})
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        log.warning("%s: features are not kept (%s)", path, error)
        if beside is not None:
            beside.unlink(missing_ok=True)


def _checksum(features: Tensor) -> str:
    return hashlib.blake2b(features.contiguous().view(torch.uint8).numpy().data, digest_size=16).hexdigest()
