"""Three small tasks that tell concept models apart (Espinosa Zarlenga et al., NeurIPS 2022, arXiv 2209.09056).

xor   x ~ U[0,1]^2, concepts x1 > 1/2 and x2 > 1/2, label their exclusive or: a linear head cannot read it
trig  h ~ N(0, 2^2) in R^3, x = (sin h_i + h_i, cos h_i + h_i, |h|^2), concepts h_i > 0, label sum h > 1:
      the concepts say most of the label
dot   v, w ~ N(0, 2^2) in R^2, x = (v + w, v - w), concepts sum v > 0 and sum w < 0, label v . w > 0:
      the concepts say nothing of the label, so whoever beats chance through them leaks
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch

from zoo.data.contract import Facts, Preprocessing
from zoo.data.errors import DataError
from zoo.data.module import ZooDataModule
from zoo.data.source import Source
from zoo.data.tabular import TableSource

NAMES = ("dot", "trig", "xor")


def generate(name: str, *, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (N, D) float32, concepts (N, K) float32 and labels (N,) int64 of task `name`."""
    rng = np.random.default_rng(seed)
    if name == "xor":
        rows = rng.uniform(size=(samples, 2))
        concepts = rows > 0.5
        labels = concepts[:, 0] != concepts[:, 1]
    elif name == "trig":
        hidden = rng.normal(0, 2, (samples, 3))
        waves = np.stack([np.sin(hidden) + hidden, np.cos(hidden) + hidden], axis=2).reshape(samples, 6)
        rows = np.hstack([waves, np.square(hidden).sum(1, keepdims=True)])
        concepts, labels = hidden > 0, hidden.sum(1) > 1
    else:
        one, other = rng.normal(0, 2, (2, samples, 2))
        rows = np.hstack([one + other, one - other])
        concepts = np.stack([one.sum(1) > 0, other.sum(1) < 0], axis=1)
        labels = (one * other).sum(1) > 0
    return rows.astype(np.float32), concepts.astype(np.float32), labels.astype(np.int64)


class LabelledRows(TableSource):
    """Rows with a class and concepts."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray, concepts: np.ndarray):
        super().__init__(rows, labels, numbers=np.arange(len(rows)))
        self.labels, self.concepts = labels, concepts


class SyntheticDataModule(ZooDataModule):
    """One of the tasks as a table. name: "dot", "trig" or "xor". samples: rows over all three splits."""

    def __init__(self, *, name: str = "dot", samples: int = 3000, **base: Any):
        super().__init__(**base)
        if name not in NAMES:
            raise DataError(f"data.name={name}: choose one of {', '.join(NAMES)}")
        if samples < 20:
            raise DataError(f"data.samples={samples}: give at least 20")
        self.task_name, self.samples = name, samples

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return generate(self.task_name, samples=self.samples, seed=self.seed)

    @property
    def facts(self) -> Facts:
        rows, concepts, _ = self._rows
        return Facts(
            task="classification",
            num_outputs=2,
            class_names=("no", "yes"),
            in_channels=rows.shape[1],
            image_size=(0, 0),
            concept_names=tuple(f"c{index + 1}" for index in range(concepts.shape[1])),
        )

    @property
    def data_preprocessing(self) -> Preprocessing:
        width = self._rows[0].shape[1]
        return Preprocessing(image_size=(0, 0), mean=(0.0,) * width, std=(1.0,) * width)

    def make_transform(self) -> None:
        return None

    def raw(self, split: str, index: int) -> np.ndarray:
        source, indices = self._split()[split]
        return torch.as_tensor(source.read(int(indices[index]))).numpy()

    def sources(self) -> dict[str, Source]:
        rows, concepts, labels = self._rows
        return {"train": LabelledRows(rows, labels, concepts)}
