"""Procedural scenes with known concepts for each image, and controls for what goes wrong with real data.

`spurious` plants a correlation between class and background in the training and validation pictures that the test
pictures do not have; `domain=shifted` takes the same scenes with another camera; `held_out` keeps pairs of shape and
colour for the test. `label_from` is the class rule: a class is one combination of values of the named attributes.
"""

import csv
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np

from zoo.data.captions import WORDS, draw_captions
from zoo.data.contract import Facts, Preprocessing
from zoo.data.errors import DataError
from zoo.data.module import ZooDataModule
from zoo.data.scenes import ATTRIBUTES, CONCEPTS, JITTERS, describe, in_words, render, to_concepts
from zoo.data.source import ArraySource, Source

CHUNK = 32
"""Scenes drawn at once."""


class ShapesDataModule(ZooDataModule):
    """Scenes of one object, always the same for the same arguments; a smaller split is the beginning of a larger one.

    Args:
        train_size, val_size, test_size: number of scenes.
        pixels: height and width of the pictures.
        label_from: the attributes that determine the class.
        spurious: share of the training and validation pictures whose background follows the class instead of chance.
        domain: "source", or "shifted" for another camera.
        held_out: how many combinations of values of the attributes `held_out_from` occur in the test split only, which
            then holds no others. With the default attributes there are 16 pairs of shape and colour.
        captions (of the base): are drawn by `zoo.data.captions`; those of train and val mention no combination that is
            held out.
    """

    def __init__(
        self,
        *,
        train_size: int = 4000,
        val_size: int = 500,
        test_size: int = 1000,
        pixels: int = 64,
        label_from: Sequence[str] = ("fill", "shape"),
        spurious: float = 0.0,
        domain: Literal["source", "shifted"] = "source",
        held_out: int = 0,
        held_out_from: Sequence[str] = ("shape", "colour"),
        **base: Any,
    ):
        super().__init__(**base)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.pixels, self.label_from, self.spurious = pixels, tuple(label_from), spurious
        self.domain = domain
        self.held_out, self.held_out_from = held_out, tuple(held_out_from)
        self._scenes: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """ "striped square" and so on, in alphabetical order."""
        return tuple(" ".join(values) for values in product(*(ATTRIBUTES[name] for name in self.label_from)))

    @property
    def facts(self) -> Facts:
        if problems := self.check():
            raise DataError(*problems)
        groups = tuple(
            (attribute, tuple(CONCEPTS.index(f"{attribute}::{value}") for value in values))
            for attribute, values in ATTRIBUTES.items()
        )
        return self.class_facts(self.classes, CONCEPTS, groups)

    @property
    def data_preprocessing(self) -> Preprocessing:
        return Preprocessing(image_size=(self.pixels, self.pixels), mean=(0.5,) * 3, std=(0.25,) * 3)

    @property
    def words(self) -> tuple[str, ...]:
        return WORDS

    def check(self) -> list[str]:
        attributes = ", ".join(ATTRIBUTES)
        problems = []
        for argument, names in (("label_from", self.label_from), ("held_out_from", self.held_out_from)):
            unknown = [name for name in names if name not in ATTRIBUTES]
            problems += [f"data.{argument}: no attribute {name!r}; choose from {attributes}" for name in unknown]
            if not names or len(set(names)) < len(names):
                problems.append(f"data.{argument}={list(names)}: name attributes, once each: {attributes}")
        if not 0 <= self.spurious <= 1:
            problems.append(f"data.spurious={self.spurious}: give a share from 0 to 1")
        if self.spurious and "background" in self.label_from:
            problems.append("data.spurious: the background is part of the class here; take it out of data.label_from")
        if self.domain not in ("source", "shifted"):
            problems.append(f"data.domain={self.domain}: choose source or shifted")
        if self.held_out_from and set(self.held_out_from) <= set(ATTRIBUTES):
            combinations = len(self._combinations())
            if not 0 <= self.held_out <= combinations * 3 // 4:
                most = combinations * 3 // 4
                problems.append(f"data.held_out={self.held_out}: give 0 to {most} of {combinations} combinations")
        small = [f"data.{split}_size={size}: give at least 1" for split, size in self.sizes.items() if size < 1]
        return problems + small + ([f"data.pixels={self.pixels}: give at least 16"] if self.pixels < 16 else [])

    def sources(self) -> dict[str, Source]:
        sources: dict[str, Source] = {}
        for number, split in enumerate(self.sizes):
            values, jitter = self.scenes(split)
            rng = np.random.default_rng([self.seed, number, 2])
            pictures = []
            for start in range(0, len(values), CHUNK):
                part = slice(start, start + CHUNK)
                noise = rng.standard_normal((len(values[part]), self.pixels, self.pixels), dtype=np.float32)
                pictures.append(render(values[part], jitter[part], noise, shifted=self.domain == "shifted"))
            concepts, labels = to_concepts(values), self.labels_of(values)
            captions = self.draw_captions(split) if self.sentences else None
            sources[split] = ArraySource(np.concatenate(pictures), labels, concepts=concepts, captions=captions)
        return sources

    def draw_captions(self, split: str) -> list[list[str]]:
        """For each scene of a split `captions` sentences that mention some of its attributes."""
        rng = Random(f"{self.seed} {split}")
        names = self.held_out_from
        unseen = [
            {name: ATTRIBUTES[name][value] for name, value in zip(names, row)}
            for row in ([] if split == "test" else self._combinations()[: self.held_out].tolist())
        ]
        values, _ = self.scenes(split)
        return [draw_captions(in_words(row), self.sentences, rng, unseen=unseen) for row in values]

    def scenes(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """(N, attributes) value numbers and (N, JITTERS) numbers in [0, 1) of a split's scenes."""
        if split not in self._scenes:
            number = list(self.sizes).index(split)
            rng = np.random.default_rng([self.seed, number, 1])
            uniform = rng.random((self.sizes[split], len(ATTRIBUTES) + 1 + JITTERS))
            counts = [len(values) for values in ATTRIBUTES.values()]
            values = np.floor(uniform[:, : len(counts)] * counts).astype(np.int64)
            if self.held_out:
                order = self._combinations()
                allowed = order[: self.held_out] if split == "test" else order[self.held_out :]
                columns = [list(ATTRIBUTES).index(name) for name in self.held_out_from]
                values[:, columns] = allowed[np.floor(uniform[:, 0] * len(allowed)).astype(np.int64)]
            if self.spurious and split != "test":
                background, count = list(ATTRIBUTES).index("background"), len(ATTRIBUTES["background"])
                planted = uniform[:, len(counts)] < self.spurious
                values[planted, background] = self.labels_of(values)[planted] % count
            self._scenes[split] = values, uniform[:, len(counts) + 1 :]
        return self._scenes[split]

    def labels_of(self, values: np.ndarray) -> np.ndarray:
        """(N,) class of scenes (N, attributes): the class rule."""
        labels = np.zeros(len(values), dtype=np.int64)
        for name in self.label_from:
            labels = labels * len(ATTRIBUTES[name]) + values[:, list(ATTRIBUTES).index(name)]
        return labels

    def caption(self, split: str, index: int) -> str:
        """A sentence that names every concept of the scene."""
        return describe(self.scenes(split)[0][index])

    def captions(self, split: str) -> list[str]:
        """The captions of a split, in the order of its items."""
        return [describe(values) for values in self.scenes(split)[0]]

    def export_png(self, folder: str | Path) -> None:
        """Write `<split>/<class>/<index>.png`, concepts.csv and captions.csv, for data=folder to read back."""
        self.setup()
        root = Path(folder)
        rows, captions = [], []
        from PIL import Image

        for split in self.sizes:
            labels, concepts = self._split()[split][0].labels, to_concepts(self.scenes(split)[0])
            for index, (label, present) in enumerate(zip(labels.tolist(), concepts.astype(int).tolist())):
                file = Path(split, self.classes[label].replace(" ", "_"), f"{index:06d}.png")
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(self.raw(split, index)).save(root / file)
                rows.append([file.as_posix(), *present])
                captions.append([file.as_posix(), self.caption(split, index)])
        for name, header, lines in (("concepts.csv", CONCEPTS, rows), ("captions.csv", ("caption",), captions)):
            with (root / name).open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows([["file", *header], *lines])

    def _combinations(self) -> np.ndarray:
        """All combinations of values (C, len(held_out_from)), those first that are held out first."""
        counts = [len(ATTRIBUTES[name]) for name in self.held_out_from]
        rows = np.array(list(product(*map(range, counts))))
        # along the diagonals, so that each value, and each combination of all but one, stays in training
        diagonal = (rows[:, 1:].sum(1) - rows[:, 0]) % max(counts)
        return rows[np.lexsort((*rows.T[::-1], diagonal))]
