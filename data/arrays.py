"""Images in npz files (`images` uint8 (N, H, W[, C]), `labels` (N,)): ROOT/train.npz, with val.npz and test.npz.

`ROOT/class_concepts.csv` gives the classes their names and concepts; see `zoo.data.concept_tables`.
"""

import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.concept_tables import CLASS_KEYS, ConceptTable, class_rows, read_table
from zoo.data.contract import Facts, Preprocessing
from zoo.data.errors import DataError
from zoo.data.module import ZooDataModule
from zoo.data.source import ArraySource, Source


class ArraysDataModule(ZooDataModule):
    """Images and labels in npz files.

    Args:
        root: a folder with train.npz and, where the data have them, val.npz and test.npz; or one npz file.
        classes: names of the classes in the order of the labels; None takes them from class_concepts.csv, or numbers.
        mirror: whether a mirrored picture keeps its class (used by `augment`).
    """

    def __init__(self, *, root: str, classes: list[str] | None = None, mirror: bool = False, **base: Any):
        super().__init__(**base)
        self.root, self.mirrors = Path(root).expanduser(), mirror
        self._named = tuple(classes) if classes else None

    @property
    def facts(self) -> Facts:
        if problems := self.check():
            raise DataError(*problems)
        table = self._table
        return self.class_facts(self.classes, table.names if table else (), table.groups if table else ())

    @property
    def data_preprocessing(self) -> Preprocessing:
        shape, _ = self._headers["train"]
        channels = shape[3] if len(shape) == 4 else 1
        return Preprocessing(image_size=(shape[1], shape[2]), mean=(0.5,) * channels, std=(0.5,) * channels)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the labels."""
        if self._named:
            return self._named
        if self._table and not self._table.problems:
            keys = self._table.keys
            names = keys.get("class_name") or keys["class_id"]
            order = keys.get("class_id", [str(index) for index in range(len(names))])
            return tuple(name for _, name in sorted(zip(map(int, order), names)))
        return tuple(str(index) for index in range(int(self._headers["train"][1].max()) + 1))

    @property
    def files(self) -> dict[str, Path]:
        """The npz file of each split that the data bring."""
        if self.root.is_file():
            return {"train": self.root}
        if not self.root.is_dir():
            raise DataError(f"data.root={self.root}: no such folder or file; give the folder that holds train.npz")
        paths = {split: self.root / f"{split}.npz" for split in ("train", "val", "test")}
        found = {split: path for split, path in paths.items() if path.exists()}
        single = sorted(self.root.glob("*.npz"))
        if "train" not in found and len(single) == 1:
            return {"train": single[0]}
        if "train" not in found:
            raise DataError(f"{self.root}: no train.npz; name one of the npz files there as data.root")
        return found

    def check(self) -> list[str]:
        try:
            headers = self._headers
        except DataError as error:
            return str(error).splitlines()
        problems = list(self._table.problems) if self._table else []
        if problems:
            return problems
        if self._table and (ids := self._table.keys.get("class_id")) and not all(name.isdigit() for name in ids):
            return [f"{self._table.path}: class_id must be the number of the class, from 0"]
        for split, (shape, labels) in headers.items():
            path = self.files[split]
            if len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
                problems.append(f"{path}: images have shape {shape}; store them as uint8 (N, H, W) or (N, H, W, 3)")
            if labels.shape != shape[:1]:
                problems.append(f"{path}: {shape[0]} images, labels of shape {labels.shape}; store one label an image")
            elif len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
                last = len(self.classes) - 1
                problems.append(f"{path}: labels {labels.min()} to {labels.max()}; number the classes 0 to {last}")
        return problems + self._concepts[1]

    def sources(self) -> dict[str, Source]:
        matrix, _ = self._concepts
        sources: dict[str, Source] = {}
        for split, path in self.files.items():
            labels = self._headers[split][1].astype(np.int64)
            with np.load(path) as arrays:
                images = arrays["images"]
            sources[split] = ArraySource(images, labels, concepts=None if matrix is None else matrix[labels])
        return sources

    @cached_property
    def _headers(self) -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
        """Shape of the images, and the labels, of each split; the images themselves stay on the disk."""
        return {split: _read_header(path) for split, path in self.files.items()}

    @cached_property
    def _table(self) -> ConceptTable | None:
        path = (self.root.parent if self.root.is_file() else self.root) / "class_concepts.csv"
        return read_table(path, keys=CLASS_KEYS) if path.exists() else None

    @cached_property
    def _concepts(self) -> tuple[np.ndarray | None, list[str]]:
        table = self._table
        if table is None:
            return None, []
        return class_rows(table, self.classes), table.problems


def _read_header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    try:
        with np.load(path) as arrays, zipfile.ZipFile(path) as archive:
            missing = [name for name in ("images", "labels") if name not in arrays.files]
            if missing:
                raise DataError(f"{path}: no array {' and '.join(missing)}; it has {', '.join(arrays.files)}")
            with archive.open("images.npy") as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
            if dtype != np.uint8:
                raise DataError(f"{path}: images are {dtype}; store them as uint8")
            return shape, arrays["labels"]
    except DataError:
        raise
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as npz ({error}); write it with numpy.savez") from None
