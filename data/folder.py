"""Your own images: `ROOT/<class>/*.jpg`, or `ROOT/train/<class>/*.jpg` with `val` and `test` beside it.

Each of `train`, `val` and `test` may also be a plain tar file (`ROOT/train.tar`), which is read in place. Concepts come
from `ROOT/concepts.csv` (one row an image) or, where there is none, `ROOT/class_concepts.csv` (one row a class); the
rows of a further table, `data.concepts=FILE` (one row an image, as `zoo serve` writes it), take the place of theirs.
See `zoo.data.concept_tables`.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.data.concept_tables import (
    CLASS_KEYS,
    FILE_KEYS,
    ConceptTable,
    class_rows,
    file_rows,
    misfits,
    name_files,
    read_table,
    replace_rows,
    shorten,
)
from zoo.data.contract import Facts, Preprocessing
from zoo.data.errors import DataError, ImageError
from zoo.data.files import FileSource, Listing, list_images
from zoo.data.module import ZooDataModule
from zoo.data.source import Source

log = logging.getLogger(__name__)


class FolderDataModule(ZooDataModule):
    """Images in class folders.

    Args:
        root: the folder, or one tar file that holds the class folders.
        train, val, test: names of the splits' folders or tar files below `root`; None ignores one. What is absent is
            cut from `train`; without any of them `root` itself holds the class folders.
        concepts: a table with a row for each image whose concepts were corrected; without a table beside the classes
            it needs a row for every image.
        channels: 3 for colour, 1 for grey.
        mirror: whether a mirrored picture keeps its class (used by `augment`).
        on_error: "error" stops at an unreadable image and names it; "skip" reads all images once in the beginning,
            leaves the unreadable ones out, and lists them in the log and in `skipped`.
    """

    def __init__(
        self,
        *,
        root: str,
        train: str | None = "train",
        val: str | None = "val",
        test: str | None = "test",
        concepts: str | None = None,
        channels: Literal[1, 3] = 3,
        mirror: bool = True,
        on_error: Literal["error", "skip"] = "error",
        **base: Any,
    ):
        super().__init__(**base)
        if not root:
            raise DataError("data.root=: give the folder that holds the class folders (. for this one)")
        if on_error not in ("error", "skip"):
            raise DataError(f"data.on_error={on_error}: choose error or skip")
        if channels not in (1, 3):
            raise DataError(f"data.channels={channels}: choose 1 or 3")
        self.root = Path(root).expanduser()
        self.split_names = {"train": train, "val": val, "test": test}
        self.corrections = Path(concepts).expanduser() if concepts else None
        self.channels, self.mirrors, self.on_error = channels, mirror, on_error
        self.skipped: list[str] = []

    @property
    def facts(self) -> Facts:
        if problems := self.check():
            raise DataError(*problems)
        table = self._table
        return self.class_facts(self.classes, table.names if table else (), table.groups if table else ())

    @property
    def data_preprocessing(self) -> Preprocessing:
        return Preprocessing(image_size=(64, 64), mean=(0.5,) * self.channels, std=(0.5,) * self.channels)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class folders, sorted."""
        return self.listings["train"].classes

    @cached_property
    def listings(self) -> dict[str, Listing]:
        """The images of each split that the data bring."""
        if not self.root.exists():
            raise DataError(f"data.root={self.root}: no such folder; give the folder that holds the class folders")
        if self.root.is_file():
            return {"train": list_images(self.root)}
        found = {}
        for split, name in self.split_names.items():
            for path in (self.root / name, self.root / f"{name}.tar") if name else ():
                if path.exists() and split not in found:
                    found[split] = list_images(path)
            if name and name != split and split not in found:
                raise DataError(f"data.{split}={name}: there is neither a folder nor a tar file {self.root / name}")
        if found and "train" not in found:
            raise DataError(
                f"{self.root}: has {' and '.join(found)}, but no folder or tar file {self.split_names['train']}"
            )
        return found or {"train": list_images(self.root)}

    def check(self) -> list[str]:
        try:
            listings = self.listings
        except DataError as error:
            return str(error).splitlines()
        problems = []
        if len(self.classes) < 2:
            here = f"{len(self.classes)} class folder{'' if len(self.classes) == 1 else 's'}"
            problems.append(f"{listings['train'].path}: {here}; put the images of each class into a folder of its own")
        for listing in listings.values():
            filled = {entry.label for entry in listing.entries}
            empty = [name for name in listing.classes if name not in filled]
            strange = [name for name in listing.classes if name not in self.classes]
            problems += shorten(f"{listing.path}: class {name!r} has no image; add some or remove it" for name in empty)
            problems += shorten(f"{listing.path}: class {name!r} is not among those of train" for name in strange)
        if problems:
            return problems + (self._table.problems if self._table else [])
        return self._concepts[1]

    def sources(self) -> dict[str, Source]:
        concepts, _ = self._concepts
        sources: dict[str, Source] = {}
        for split, listing in self.listings.items():
            source = FileSource(listing, classes=self.classes, concepts=concepts.get(split))
            if self.on_error == "skip":
                self._skip(source)
            sources[split] = source
        return sources

    @cached_property
    def _table(self) -> ConceptTable | None:
        folder = self.root.parent if self.root.is_file() else self.root
        for name, keys in (("concepts.csv", FILE_KEYS), ("class_concepts.csv", CLASS_KEYS)):
            if (folder / name).exists():
                return read_table(folder / name, keys=keys)
        return self._corrected

    def _misnamed(self) -> list[str]:
        """Tables beside the classes whose names are nearly those that are read."""
        folder = self.root.parent if self.root.is_file() else self.root
        near = {
            path: match[0]
            for path in sorted(folder.glob("*.csv"))
            if (match := get_close_matches(path.name.lower(), ("concepts.csv", "class_concepts.csv"), n=1, cutoff=0.92))
        }
        return [f"{path}: is not read; rename it to {name}, or to something else" for path, name in near.items()]

    @cached_property
    def _corrected(self) -> ConceptTable | None:
        """The table of `data.concepts`."""
        if self.corrections is None:
            return None
        table = read_table(self.corrections, keys=FILE_KEYS)
        if not table.problems and not len(table.values):
            table.problems.append(f"{self.corrections}: has no row below its names; add one for each corrected image")
        return table

    @cached_property
    def _concepts(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """(N, K) concepts of each split, and what is wrong with the tables."""
        table, corrected = self._table, self._corrected
        tables = [table] if table is corrected else [table, corrected]
        problems = [line for one in tables if one for line in one.problems]
        if table is None or problems:
            return {}, problems or self._misnamed()
        names = {split: self._file_names(split) for split in self.listings}
        every = [name for split in names.values() for name in split]
        if corrected:
            name_files(corrected, every)
        concepts = self._rows(table, names)
        if corrected is None or corrected is table:
            return concepts, table.problems
        problems = table.problems + corrected.problems + misfits(corrected, names=table.names, files=every)
        for split, files in names.items() if not problems else ():
            replace_rows(concepts[split], corrected, files, names=table.names)
        return concepts, problems

    def _rows(self, table: ConceptTable, names: dict[str, list[str]]) -> dict[str, np.ndarray]:
        """(N, K) concepts of each split, whose images the table calls `names`."""
        if "file" in table.keys:
            rows = file_rows(table, [name for files in names.values() for name in files])
            empty = np.zeros(len(table.names), dtype=np.float32)
            return {split: np.stack([rows.get(name, empty) for name in files]) for split, files in names.items()}
        matrix = class_rows(table, self.classes)
        position = {name: index for index, name in enumerate(self.classes)}
        return {
            split: matrix[[position[entry.label] for entry in listing.entries]]
            for split, listing in self.listings.items()
        }

    def _file_names(self, split: str) -> list[str]:
        """What concepts.csv calls the images: their path below `root`, with the split's name where it has a folder."""
        listing = self.listings[split]
        prefix = "" if listing.path == self.root else f"{self.split_names[split]}/"
        return [prefix + entry.inner for entry in listing.entries]

    def _skip(self, source: FileSource) -> None:
        """Leave out what cannot be decoded, and say so."""

        def problem(index: int) -> str | None:
            try:
                source.read(index)
            except ImageError as error:
                return str(error)
            return None

        with ThreadPoolExecutor() as pool:
            problems = list(pool.map(problem, range(len(source))))
        bad = [line for line in problems if line]
        source.keep([index for index, line in enumerate(problems) if not line])
        self.skipped += bad
        if bad:
            log.warning("%d of %d images left out:\n%s", len(bad), len(problems), "\n".join(bad))
