"""Tables for regression: a CSV or npz file, or scikit-learn's diabetes data. A row (D,) is a model's `image`.

Rows with a missing target are left out. Text columns become one column for each of their values. Features and, unless
`standardize_target` is off, the target are standardised with the training rows' mean and standard deviation; an error
in the target's own unit is that of the standardised target times `target_std`.
"""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.data.contract import Facts, Preprocessing
from zoo.data.errors import DataError
from zoo.data.module import ZooDataModule
from zoo.data.source import Source
from zoo.data.tables import Table, read_csv, read_npz


class TableSource(Source):
    """Rows of numbers: (N, D) float32 features and (N, T) float32 targets; numbers: (N,) of the rows in the file."""

    def __init__(self, rows: np.ndarray, targets: np.ndarray, *, numbers: np.ndarray):
        self.rows, self.labels = rows.astype(np.float32), targets.astype(np.float32)
        self.names = [str(number) for number in numbers.tolist()]

    def read(self, index: int) -> Tensor:
        return torch.from_numpy(self.rows[index])

    def fingerprint(self) -> str:
        return hashlib.blake2b(self.rows.tobytes() + str(self.rows.shape).encode(), digest_size=16).hexdigest()


class Standardize:
    """A row (D,) to zero mean and unit variance by the statistics that `Preprocessing` carries."""

    def __init__(self, preprocessing: Preprocessing):
        self.mean, self.std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)

    def __call__(self, row: Any) -> Tensor:
        return (torch.as_tensor(row, dtype=torch.float32) - self.mean) / self.std

    def crop(self, row: Tensor) -> Tensor:
        return row

    def finish(self, row: Tensor) -> Tensor:
        return self(row)


class TabularDataModule(ZooDataModule):
    """One table with one target.

    Args:
        root: a CSV file; an npz file with `x` (N, D), the target (N,) and, for `fold`, `test_mask` (N, folds); None for
            scikit-learn's diabetes data.
        target: name of the target's column, or of its array in an npz file.
        drop: columns that are no features (row numbers, dates, parts of the target).
        skip_lines: lines before the header of a CSV file.
        missing: what happens to rows with a missing feature: "drop" leaves them out, "mean" takes the training mean.
        max_target: leave out rows whose target is this or more.
        log_target: take the natural logarithm of the target.
        fold: which column of `test_mask` is the test split; None cuts the test split from the rows.
        standardize_target: give the target zero mean and unit variance over the training rows.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        target: str = "target",
        drop: list[str] | None = None,
        skip_lines: int = 0,
        missing: Literal["drop", "mean"] = "drop",
        max_target: float | None = None,
        log_target: bool = False,
        fold: int | None = None,
        standardize_target: bool = True,
        **base: Any,
    ):
        super().__init__(**base)
        if missing not in ("drop", "mean"):
            raise DataError(f"data.missing={missing}: choose drop or mean")
        self.root = Path(root).expanduser() if root else None
        self.target, self.drop, self.skip_lines, self.missing = target, list(drop or ()), skip_lines, missing
        self.max_target, self.log_target, self.fold = max_target, log_target, fold
        self.standardize_target = standardize_target

    @property
    def facts(self) -> Facts:
        return Facts(
            task="regression",
            num_outputs=1,
            class_names=(self.target,),
            in_channels=self.preprocessing.channels,
            image_size=(0, 0),
        )

    @property
    def default_preprocessing(self) -> Preprocessing:
        return self.data_preprocessing

    @property
    def data_preprocessing(self) -> Preprocessing:
        return self._standardized[1]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The D columns of a row."""
        return self._table[0].names

    @property
    def target_mean(self) -> float:
        """What standardising subtracted from the target; 0 without `standardize_target`."""
        return self._standardized[2]

    @property
    def target_std(self) -> float:
        """What standardising divided the target by; 1 without `standardize_target`."""
        return self._standardized[3]

    def check(self) -> list[str]:
        try:
            self._table  # noqa: B018
        except DataError as error:
            return str(error).splitlines()
        return []

    def make_transform(self) -> Any:
        return Standardize(self.preprocessing)

    def raw(self, split: str, index: int) -> np.ndarray:
        """Item `index` of a split in the columns' own units: (D,)."""
        source, indices = self._split()[split]
        return source.read(int(indices[index])).numpy()

    def sources(self) -> dict[str, Source]:
        return self._standardized[0]

    @cached_property
    def _standardized(self) -> tuple[dict[str, Source], Preprocessing, float, float]:
        """The sources with standardised targets; the rows' statistics over the training rows; the target's."""
        table, numbers = self._table
        sources: dict[str, Source] = {}
        for split, part in (("train", ~table.test), ("test", table.test)):
            if part.any():
                sources[split] = TableSource(table.rows[part], table.targets[part, None], numbers=numbers[part])
        train = self._cut(sources)["train"]
        chosen = train[0].rows[train[1]].astype(np.float64)  # type: ignore[attr-defined]
        mean, std = np.nanmean(chosen, axis=0), np.nanstd(chosen, axis=0)
        std[~(std > 0)] = 1.0
        for source in sources.values():
            assert isinstance(source, TableSource)
            source.rows = np.where(np.isnan(source.rows), mean.astype(np.float32), source.rows)
        shift, scale = 0.0, 1.0
        if self.standardize_target:
            seen = train[0].labels[train[1]].astype(np.float64)
            shift, scale = float(seen.mean()), float(seen.std()) or 1.0
            for source in sources.values():
                source.labels = ((source.labels - shift) / scale).astype(np.float32)
        preprocessing = Preprocessing(image_size=(0, 0), mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        return sources, preprocessing, shift, scale

    @cached_property
    def _table(self) -> tuple[Table, np.ndarray]:
        """The rows that are left, and their numbers in the file."""
        table = self._read()
        targets = table.targets
        if self.log_target and (targets <= 0).any():
            raise DataError(f"{self._where}: data.log_target needs targets above 0; some are not")
        keep = ~np.isnan(targets)
        if self.max_target is not None:
            keep &= targets < self.max_target
        if self.missing == "drop":
            keep &= ~np.isnan(table.rows).any(axis=1)
        if keep.sum() < 4:
            raise DataError(f"{self._where}: {int(keep.sum())} of {len(keep)} rows are left; set data.missing=mean")
        targets = np.log(targets) if self.log_target else targets
        return Table(table.rows[keep], targets[keep], table.names, table.test[keep]), np.flatnonzero(keep)

    @property
    def _where(self) -> str:
        return str(self.root) if self.root else "diabetes"

    def _read(self) -> Table:
        if self.root is None:
            from sklearn.datasets import load_diabetes

            data = load_diabetes(scaled=False)
            return Table(data.data, data.target, tuple(data.feature_names), np.zeros(len(data.data), dtype=bool))
        if not self.root.is_file():
            raise DataError(f"data.root={self.root}: no such file; give a CSV or npz file")
        if self.root.suffix == ".npz":
            return read_npz(self.root, target=self.target, fold=self.fold)
        return read_csv(self.root, target=self.target, drop=self.drop, skip_lines=self.skip_lines)
