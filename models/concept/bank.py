"""Concept banks: directions in feature space that stand for named concepts.

Yuksekgonul, Wang, Zou, "Post-hoc concept bottleneck models", ICLR 2023, arXiv 2205.15480 (mertyg/post-hoc-cbm, MIT);
concept activation vectors are from Kim et al., ICML 2018, arXiv 1711.11279. A bank is learnt from examples (a linear
SVM for each concept), taken from a text tower, discovered without labels or words (clusters of features, as in Ghorbani
et al., NeurIPS 2019, arXiv 1902.03129), or drawn at random: the control that tells what the names are worth. It is kept
as a safetensors file and a JSON beside it; the released code pickles whole modules.
"""

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.kernels.kmeans import kmeans

STATISTICS = ("max", "min", "pos_mean", "pos_std", "neg_mean", "neg_std", "q_90", "q_10", "pos_count", "neg_count")


@dataclass(frozen=True)
class ConceptVector:
    """One linear SVM: normal (D,), intercept, accuracy on training and validation rows, statistics of its margins."""

    vector: np.ndarray
    intercept: float
    accuracy: tuple[float, float]
    margins: tuple[float, ...]


@dataclass
class ConceptBank:
    """K directions. vectors (K, D), intercepts (K, 1), norms (K, 1), the K names; where they were learnt from examples
    margins (K, 10) in the order of `STATISTICS` and accuracies (K, 2) on training and validation rows."""

    vectors: Tensor
    intercepts: Tensor
    norms: Tensor
    names: tuple[str, ...]
    margins: Tensor | None = None
    accuracies: Tensor | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def project(self, features: Tensor) -> Tensor:
        """Signed distances p_k = (v_k . f + b_k) / |v_k|; features (B, D) -> (B, K)."""
        return project(features, self.vectors, self.intercepts, self.norms)

    def save(self, path: str | Path) -> None:
        """Write `path`.safetensors and `path`.json, each beside its place and then renamed."""
        tensors = {"vectors": self.vectors, "intercepts": self.intercepts, "norms": self.norms}
        optional = {"margins": self.margins, "accuracies": self.accuracies}
        tensors |= {key: value for key, value in optional.items() if value is not None}
        about = {"names": list(self.names), "statistics": list(STATISTICS), "provenance": self.provenance}
        data, facts = Path(f"{path}.safetensors"), Path(f"{path}.json")
        save_file({key: value.contiguous() for key, value in tensors.items()}, f"{data}.part")
        Path(f"{facts}.part").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        Path(f"{data}.part").replace(data)
        Path(f"{facts}.part").replace(facts)

    @classmethod
    def load(cls, path: str | Path) -> "ConceptBank":
        """Read what `save` wrote.

        Raises:
            ValueError: a file is missing, or the two do not belong together.
        """
        data, facts = Path(f"{path}.safetensors"), Path(f"{path}.json")
        if missing := [file.name for file in (data, facts) if not file.is_file()]:
            raise ValueError(f"no concept bank at {path}: {' and '.join(missing)} missing")
        about = json.loads(facts.read_text(encoding="utf-8"))
        bank = cls(**load_file(data), names=tuple(about["names"]), provenance=about["provenance"])
        if len(bank.names) != len(bank.vectors):
            raise ValueError(f"the concept bank {path} holds {len(bank.vectors)} vectors and {len(bank.names)} names")
        return bank


def project(features: Tensor, vectors: Tensor, intercepts: Tensor, norms: Tensor) -> Tensor:
    """Signed distances of features (B, D) to the K planes: (B, K)."""
    return (features @ vectors.T + intercepts.squeeze(1)) / norms.squeeze(1)


def fit_vector(positives: np.ndarray, negatives: np.ndarray, *, c: float, train: int | None = None) -> ConceptVector:
    """A linear SVM between positives and negatives, both (n, D); c is its inverse regularisation.

    The first `train` rows of each (default: half of them) train it, the rest validate.
    """
    from sklearn.svm import SVC

    train = train or len(positives) // 2
    x = np.concatenate([positives[:train], negatives[:train]]).astype(np.float64)
    y = np.repeat([1, 0], [len(positives[:train]), len(negatives[:train])])
    held_out = np.concatenate([positives[train:], negatives[train:]]).astype(np.float64)
    held_labels = np.repeat([1, 0], [len(positives[train:]), len(negatives[train:])])
    machine = SVC(C=c, kernel="linear").fit(x, y)
    vector, intercept = machine.coef_[0], float(machine.intercept_[0])
    margin = (x @ vector + intercept) / np.linalg.norm(vector)
    accuracy = (machine.score(x, y), machine.score(held_out, held_labels) if len(held_out) else float("nan"))
    return ConceptVector(vector, intercept, accuracy, margin_statistics(margin, y))


def margin_statistics(margin: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """In the order of `STATISTICS`: "pos" and "neg" are margins above and below 0, the counts are of the labels.

    Standard deviations are of the population; a side without a margin has 0.
    """
    above, below = margin[margin > 0], margin[margin < 0]
    sides = [float(f(side)) if len(side) else 0.0 for side in (above, below) for f in (np.mean, np.std)]
    quantiles = [float(np.quantile(margin, share)) for share in (0.9, 0.1)]
    counts = [float(labels.sum()), float((1 - labels).sum())]
    return (float(margin.max()), float(margin.min()), *sides, *quantiles, *counts)


def bank_from_examples(
    features: Tensor, concepts: Tensor, names: Sequence[str], *, c: Sequence[float], samples: int, seed: int
) -> ConceptBank:
    """Learn every concept from labelled features (N, D), concepts (N, K) in [0, 1]; see `bank_from_sides`."""
    present = concepts > 0.5
    sides = ((features[present[:, k]], features[~present[:, k]]) for k in range(len(names)))
    return bank_from_sides(sides, names, c=c, samples=samples, seed=seed)


def bank_from_sides(
    sides: Iterable[tuple[Tensor, Tensor]], names: Sequence[str], *, c: Sequence[float], samples: int, seed: int
) -> ConceptBank:
    """Learn every concept from its positives (P, D) and its negatives (Q, D).

    For each concept 2 * `samples` positives and as many negatives are drawn, repeatedly where there are fewer; half of
    them train, and no image is in both halves. Of the values in `c` the one with the best mean validation accuracy is
    kept. A concept without positives or without negatives becomes a zero vector, which never speaks; both cases warn.
    """
    rng = np.random.default_rng(seed)
    drawn, width = [], 0
    for positives, negatives in sides:
        width = positives.shape[1]
        drawn.append(_draw((positives, negatives), 2 * samples, rng))
    if short := [name for name, rows in zip(names, drawn) if rows is not None and rows[2]]:
        warnings.warn(f"fewer than {2 * samples} examples, drawn repeatedly: {_some(short)}", stacklevel=2)
    if silent := [name for name, rows in zip(names, drawn) if rows is None]:
        warnings.warn(f"concepts that all or none of the images have stay silent: {_some(silent)}", stacklevel=2)
    banks = {value: [rows and fit_vector(rows[0], rows[1], c=value) for rows in drawn] for value in c}
    best = max(c, key=lambda value: np.mean([v.accuracy[1] for v in banks[value] if v] or [0.0]))
    blank = ConceptVector(np.zeros(width), 0.0, (0.5, 0.5), (0.0,) * len(STATISTICS))
    kept = [vector or blank for vector in banks[best]]
    vectors = torch.tensor(np.stack([vector.vector for vector in kept])).float()
    norms = vectors.norm(dim=1, keepdim=True)
    return ConceptBank(
        vectors,
        torch.tensor([[vector.intercept] for vector in kept]).float(),
        torch.where(norms > 0, norms, 1.0),
        tuple(names),
        torch.tensor([vector.margins for vector in kept]).float(),
        torch.tensor([vector.accuracy for vector in kept]).float(),
        {"source": "examples", "c": best, "samples": samples, "seed": seed},
    )


def bank_from_vectors(vectors: Tensor, names: Sequence[str], **provenance: Any) -> ConceptBank:
    """Directions of length 1 through the origin, from vectors (K, D) such as a text tower's."""
    unit = torch.nn.functional.normalize(vectors.float(), dim=1)
    count = len(unit)
    return ConceptBank(
        unit, unit.new_zeros(count, 1), unit.new_ones(count, 1), tuple(names), provenance=dict(provenance)
    )


def bank_from_clusters(features: Tensor, names: Sequence[str], *, seed: int) -> ConceptBank:
    """Discover as many concepts as there are names: the directions in which the k-means clusters of features (N, D) lie
    from their mean.

    Raises:
        ValueError: more names than features.
    """
    found = kmeans(features.float(), len(names), generator=torch.Generator(features.device).manual_seed(seed))
    return bank_from_vectors(found.centroids - features.float().mean(0), names, source="clusters", seed=seed)


def random_bank(names: Sequence[str], dim: int, *, seed: int) -> ConceptBank:
    """Random directions under the same names: the control every concept bank is to beat."""
    vectors = torch.randn(len(names), dim, generator=torch.Generator().manual_seed(seed))
    return bank_from_vectors(vectors, names, source="random", seed=seed)


def _draw(
    sides: tuple[Tensor, Tensor], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, bool] | None:
    """`count` positives and negatives, and whether some had to be repeated; None where a side is empty."""
    if not all(len(side) for side in sides):
        return None
    rows = [_two_halves(rng.permutation(len(side)), count) for side in sides]
    positives, negatives = (side[chosen.tolist()].cpu().double().numpy() for side, chosen in zip(sides, rows))
    return positives, negatives, any(len(side) < count for side in sides)


def _two_halves(rows: np.ndarray, count: int) -> np.ndarray:
    """`count` rows whose halves share none (but for a single row, which is in both)."""
    cut = min(count // 2, max(1, len(rows) // 2))
    rest = rows[cut:] if len(rows) > 1 else rows
    return np.concatenate([np.resize(rows[:cut], count // 2), np.resize(rest, count - count // 2)])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
