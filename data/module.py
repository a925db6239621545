"""The base of all data modules: splits, loaders and order are decided here, once, for every kind of data."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.concept_captions import ConceptCaptions, vocabulary
from zoo.data.concept_folders import ConceptFolder, check_images, list_concepts
from zoo.data.contract import Facts, Preprocessing
from zoo.data.dataset import Split
from zoo.data.errors import DataError
from zoo.data.sampler import GlobalSampler, evaluation_batch_size
from zoo.data.source import Source
from zoo.data.splits import few_of_each, stratified_split
from zoo.data.transforms import INTERPOLATIONS, Transform, load_image

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")


class ZooDataModule(LightningDataModule):
    """Images or rows with labels and, where there are any, concepts, in three splits.

    A kind of data defines `facts`, `data_preprocessing` and `sources`, and `check` where a user can err.

    Args:
        batch_size: items in a batch over all processes together.
        num_workers: processes that read ahead; the batches do not depend on it.
        seed: of the split, the order and the augmentation.
        val_fraction: share of the training data held out for each of validation and test that the data do not bring.
        shots: training items of each class, where few are wanted: those of 4 are among those of 8. None takes all;
            validation and test stay whole. A class that has fewer gives all; the log names it.
        captions: sentences about each item that the batches carry, another one in each epoch, made from the names of
            classes and concepts (`zoo.data.concept_captions`) where the data bring none.
        augment: vary the training pictures (shifts; mirroring where the data allow it).
        image_size: height and width of the default preprocessing, where the data's own size will not do. A trained
            model and a backbone with weights have a size of their own: another one is refused.
        preprocessing: what pictures go through, as a `Preprocessing` or its dictionary; None is the data's own.
    """

    mirrors: bool = False
    """Whether a mirrored picture is still one of its class."""

    train_set: Any
    val_set: Any
    test_set: Any
    _ready: bool

    def __init__(
        self,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        val_fraction: float = 0.1,
        shots: int | None = None,
        captions: int = 0,
        augment: bool = False,
        image_size: int | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    ):
        super().__init__()
        problems = [
            f"data.{name}={value}: give at least {least}"
            for name, value, least in (
                ("batch_size", batch_size, "1"),
                ("num_workers", num_workers, "0"),
                ("shots", shots, "1, or null for all"),
                ("captions", captions, "0 sentences for each item"),
                ("image_size", image_size, "1, or null for the data's own"),
            )
            if value is not None and value < int(least[0])
        ]
        if not 0 < val_fraction < 0.5:
            problems.append(f"data.val_fraction={val_fraction}: give a share above 0 and below 0.5")
        if problems:
            raise DataError(*problems)
        self.batch_size, self.num_workers, self.seed, self.shots = batch_size, num_workers, seed, shots
        self.sentences = captions
        self.val_fraction, self.augment, self.image_size = val_fraction, augment, image_size
        self._preprocessing = _as_preprocessing(preprocessing)
        self._indices: dict[str, tuple[Source, np.ndarray]] | None = None
        self._ready = False

    @property
    def facts(self) -> Facts:
        """What a model has to know; no image is decoded."""
        raise NotImplementedError

    def class_facts(
        self,
        class_names: tuple[str, ...],
        concept_names: tuple[str, ...] = (),
        concept_groups: tuple[tuple[str, tuple[int, ...]], ...] = (),
    ) -> Facts:
        """The facts of pictures that belong to classes, at the preprocessing in force."""
        return Facts(
            task="classification",
            num_outputs=len(class_names),
            class_names=class_names,
            in_channels=self.preprocessing.channels,
            image_size=self.preprocessing.image_size,
            concept_names=concept_names,
            concept_groups=concept_groups,
        )

    @property
    def data_preprocessing(self) -> Preprocessing:
        """What suits the data at their own size."""
        raise NotImplementedError

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary of a text tower that learns from these data: of their captions, classes and concepts."""
        return vocabulary([*self.facts.class_names, *self.facts.concept_names])

    def sources(self) -> dict[str, Source]:
        """The data by split: "train", and "val" and "test" where the data bring them."""
        raise NotImplementedError

    def check(self) -> list[str]:
        """All mistakes that can be found without reading an image: what, where, what to do; one line each."""
        return []

    @property
    def default_preprocessing(self) -> Preprocessing:
        """The data's own preprocessing, at `image_size` where that is given."""
        own = self.data_preprocessing
        return replace(own, image_size=(self.image_size, self.image_size)) if self.image_size else own

    @property
    def preprocessing(self) -> Preprocessing:
        """What is in force."""
        return self._preprocessing or self.default_preprocessing

    def use_preprocessing(self, preprocessing: Preprocessing | Mapping[str, Any] | None) -> None:
        """Take a backbone's preprocessing instead of the data's own (None returns to that).

        Raises:
            DataError: it makes images of another size than the user asked for.
        """
        taken, asked = _as_preprocessing(preprocessing), self.image_size
        if taken and asked and taken.image_size not in ((0, 0), (asked, asked)):
            height, width = taken.image_size
            raise DataError(f"data.image_size={asked}: the model sees images of {height}x{width}: leave it out")
        self._preprocessing = taken
        self._ready = False

    @property
    def split_indices(self) -> dict[str, list[int]]:
        """Which items each split holds, as positions in the data's own order of the file or folder they come from."""
        return {split: indices.tolist() for split, (_, indices) in self._split().items()}

    def setup(self, stage: str | None = None) -> None:
        """Build the three splits; later calls cost nothing.

        Raises:
            DataError: what `check` found, or a split without an item.
        """
        if self._ready:
            return
        if problems := self.check():
            raise DataError(*problems)
        empty = [split for split, (_, indices) in self._split().items() if not len(indices)]
        if empty:
            raise DataError(f"no items for {' and '.join(empty)}: give more data or a larger data.val_fraction")
        transform = self.make_transform()
        for split, (source, indices) in self._split().items():
            augmented = self.augment and split == "train" and transform is not None
            items = Split(source, indices, transform=transform, seed=self.seed, augmented=augmented, flip=self.mirrors)
            setattr(self, f"{split}_set", items)
        self._ready = True
        if stage == "fit" and self.shots is not None:
            self._tell_of_scarce_classes(self.shots)

    def make_transform(self) -> Transform | None:
        """From a source's picture to the tensor a model sees; None leaves it as it is."""
        return Transform(self.preprocessing)

    def raw(self, split: str, index: int) -> np.ndarray:
        """Item `index` of a split before preprocessing: uint8 (H, W, C), C 1 or 3."""
        source, indices = self._split()[split]
        return source.read(int(indices[index])).numpy().transpose(1, 2, 0)

    def item_name(self, split: str, index: int) -> str:
        """What to call item `index` of a split: its path, or its number."""
        source, indices = self._split()[split]
        return source.names[int(indices[index])]

    def pictures(self, paths: Sequence[str | Path]) -> Tensor:
        """Image files that belong to no split, as a model sees them: (N, C, H, W)."""
        transform = Transform(self.preprocessing)
        return torch.stack([transform(load_image(path)) for path in paths])

    def concept_examples(self, root: str | Path) -> list[ConceptFolder]:
        """The concepts that a folder of image folders shows (`zoo.data.concept_folders`).

        Raises:
            DataError: a line for each mistake.
        """
        if self.preprocessing.image_size == (0, 0):
            raise DataError(f"{root}: shows concepts in images, and these data are rows of a table")
        return list_concepts(root)

    def check_concept_examples(self, root: str | Path) -> list[str]:
        """All mistakes in such a folder, also images that cannot be read, a line each."""
        try:
            return check_images(self.concept_examples(root))
        except DataError as error:
            return str(error).splitlines()

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._loader("test")

    def _loader(self, split: str, *, shuffle: bool = False) -> DataLoader:
        self.setup()
        return make_loader(
            getattr(self, f"{split}_set"),
            shuffle=shuffle,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world=self.trainer.world_size if self.trainer else 1,
        )

    def _split(self) -> dict[str, tuple[Source, np.ndarray]]:
        """Source and indices of each split."""
        if self._indices is not None:
            return self._indices
        self._indices = self._cut(self._captioned(self.sources()))
        if self.shots is not None:
            source, indices = self._indices["train"]
            if self.facts.task != "classification":
                raise DataError(f"data.shots={self.shots}: is for classes, and these data have none")
            few = few_of_each(source.names, source.labels, indices, count=self.shots, seed=self.seed)
            self._indices["train"] = (source, few)
        return self._indices

    def _tell_of_scarce_classes(self, shots: int, shown: int = 6) -> None:
        counts = np.bincount(self.train_set.labels, minlength=self.facts.num_outputs)
        fewest = [index for index in counts.argsort(kind="stable") if counts[index] < shots]
        named = ", ".join(f"{self.facts.class_names[index]} ({counts[index]})" for index in fewest[:shown])
        more = f" and {len(fewest) - shown} more" if len(fewest) > shown else ""
        if fewest:
            log.warning("data.shots=%d: these classes have fewer items, all are taken: %s%s", shots, named, more)

    def _captioned(self, sources: dict[str, Source]) -> dict[str, Source]:
        if not self.sentences:
            return sources
        facts = self.facts
        if facts.task != "classification":
            raise DataError(f"data.captions={self.sentences}: are made of names of classes, and these data have none")
        for source in sources.values():
            if source.captions is None:
                source.captions = ConceptCaptions(
                    names=source.names,
                    labels=source.labels,
                    concepts=source.concepts,
                    class_names=facts.class_names,
                    concept_names=facts.concept_names,
                    count=self.sentences,
                    seed=self.seed,
                )
        return sources

    def _cut(self, sources: dict[str, Source]) -> dict[str, tuple[Source, np.ndarray]]:
        """The splits as the data bring them, and what they do not bring cut from the training data."""
        absent = [split for split in SPLITS if split not in sources]
        train = sources["train"]
        strata = train.labels if train.labels.ndim == 1 else None
        fractions = [self.val_fraction] * len(absent)
        parts = stratified_split(train.names, strata=strata, fractions=fractions, seed=self.seed)
        cut = {split: (train, part) for split, part in zip(["train", *absent], parts)}
        brought = {split: (source, np.arange(len(source))) for split, source in sources.items() if split != "train"}
        return {split: {**cut, **brought}[split] for split in SPLITS}


def make_loader(
    items: Any, *, shuffle: bool, batch_size: int, num_workers: int, seed: int, rank: int, world: int
) -> DataLoader:
    """A loader whose order and batches do not depend on the number of workers or processes.

    Raises:
        DataError: the batch cannot be shared evenly, or there is nothing to load.
    """
    if batch_size % world:
        raise DataError(f"data.batch_size={batch_size}: {world} processes cannot share it; give a multiple of {world}")
    if len(items) < world:
        raise DataError(f"a split has {len(items)} items for {world} processes: take fewer devices or more data")
    per_process = batch_size // world
    if not shuffle:
        per_process = evaluation_batch_size(len(items), per_process=per_process, world=world)
    return DataLoader(
        items,
        batch_size=per_process,
        sampler=GlobalSampler(items, shuffle=shuffle, seed=seed, rank=rank, world=world),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def _as_preprocessing(values: Preprocessing | Mapping[str, Any] | None) -> Preprocessing | None:
    """A checked `Preprocessing`, from its dictionary where need be."""
    if values is None or isinstance(values, Preprocessing):
        return values and _checked(values)
    plain = {key: value if isinstance(value, str | int | float) else list(value) for key, value in values.items()}
    try:
        return _checked(Preprocessing.from_dict(plain))
    except TypeError as error:
        valid = "image_size, mean, std, crop_pct, interpolation"
        raise DataError(f"data.preprocessing: {error}; it takes {valid}") from None


def _checked(values: Preprocessing) -> Preprocessing:
    problems = []
    if values.interpolation not in INTERPOLATIONS:
        problems.append(f"interpolation={values.interpolation}: choose one of {', '.join(INTERPOLATIONS)}")
    if len(values.mean) != len(values.std) or not all(std > 0 for std in values.std):
        problems.append(f"std={values.std}: give one number above 0 for each of the {len(values.mean)} of mean")
    if not 0 < values.crop_pct <= 1:
        problems.append(f"crop_pct={values.crop_pct}: give a share above 0 and at most 1")
    if len(values.image_size) != 2:
        problems.append(f"image_size={values.image_size}: give height and width")
    if problems:
        raise DataError(*(f"data.preprocessing.{line}" for line in problems))
    return values
