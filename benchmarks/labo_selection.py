"""LaBo's selection: the zoo's greedy beside the apricot package's and plain NumPy's, to the same set.

    OMP_NUM_THREADS=1 python benchmarks/labo_selection.py   # 500 candidates x 100 classes x 512 dims, 50 kept; minutes

Two objectives: the released one over [scaled information | text features] and the published one over cosines. Rivals:

    apricot         the package as it is called for a sum of two objectives, and as LaBo calls it: a MixtureSelection
                    of a CustomSelection, the modular term, and a FacilityLocationSelection, optimizer="naive". The
                    others, "two-stage" by default, choose other sets there: a CustomSelection in a mixture counts the
                    gain of the whole mixture as its own, so that old gains and new ones do not compare.
    coverage, NAME  apricot's optimisers over its compiled gains alone, the modular term added by NumPy: what would be
                    left with the calls to Python cut out of the package
    numpy           every candidate at every step

apricot's compilation is excluded, and its check that a matrix has one sign is off, as LaBo's is. All on one thread,
apricot's compiled loops too, in seconds of the processor, which other work on the machine does not lengthen. Writes
labo_selection.json beside this file.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from machine import cpu

from zoo.models.concept.labo_selection import class_scores, discriminability, greedy, mutual_information, positive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--keep", type=int, default=50)
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: the figures are of one thread")
    concepts, owners, scores = problem(args.candidates, args.classes, args.dims)
    rivals: dict[str, Callable] = {"zoo": zoo, "numpy": plain}
    compilation = {}
    if has_apricot():
        found, compilation["apricot_compilation_seconds_a_selection"] = timed(apricot)
        rivals |= found
    seconds, cosine = measure(concepts, owners, scores, args.keep, rivals)
    record = {
        "command": " ".join(["OMP_NUM_THREADS=1 python benchmarks/labo_selection.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": cpu(),
        "threads": 1,
        "clock": "time.process_time",
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "shape": vars(args),
        "same_set": True,
        **figures(seconds, cosine),
        **compilation,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    for name, by in record["ratio"].items():
        print(
            ", ".join(f"{objective} {ratio:.1f}x" for objective, ratio in by.items()), f"faster than {name}, same set"
        )


def problem(candidates: int, classes: int, dims: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sentence vectors around a common direction and their class's, as CLIP's are; 16 images a class."""
    rng = np.random.default_rng(0)
    common, centres = 3 * rng.normal(size=dims), rng.normal(size=(classes, dims))
    owners = np.repeat(np.arange(classes), candidates)
    concepts = (common + 0.7 * centres[owners] + rng.normal(size=(len(owners), dims))) / dims**0.5
    labels = np.repeat(np.arange(classes), 16)
    images = (common + centres[labels] + rng.normal(size=(len(labels), dims))) / dims**0.5
    return concepts, owners, positive(class_scores(images, labels, concepts, classes))


def measure(concepts, owners, scores, keep, rivals) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Seconds of each rival for each objective, class by class, and of the cosine matrices."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"upstream": [], "paper": []} for name in rivals}
    cosine = []
    information, entropy = 1e7 * mutual_information(scores), discriminability(scores)
    for label in range(scores.shape[1]):
        own = np.flatnonzero(owners == label)
        rows = np.concatenate([information[own, None], concepts[own]], axis=1)
        compare("upstream", rows, information[own], np.zeros(rows.shape[1]), keep, rivals, seconds)
        similarity, spent = timed(lambda own=own: cosines(concepts[own]))
        cosine.append(spent)
        compare("paper", similarity, entropy[own], similarity.min(1), keep, rivals, seconds)
    return seconds, cosine


def figures(seconds: dict[str, dict[str, list[float]]], cosine: list[float]) -> dict[str, Any]:
    """Times of a class, and how many times as long as the zoo each rival takes."""
    rivals, ours = {name: by for name, by in seconds.items() if name != "zoo"}, seconds["zoo"]
    shared = sum(cosine)
    return {
        "cosine_milliseconds_a_class": quantiles(cosine),
        "greedy_milliseconds_a_class": {n: {o: quantiles(t) for o, t in by.items()} for n, by in seconds.items()},
        "ratio": {name: {o: sum(times) / sum(ours[o]) for o, times in by.items()} for name, by in rivals.items()},
        "ratio_with_cosines": {
            name: (sum(by["paper"]) + shared) / (sum(ours["paper"]) + shared) for name, by in rivals.items()
        },
    }


def compare(objective, cover, bonus, start, keep, rivals, seconds) -> None:
    sets = {}
    for name, solve in rivals.items():
        sets[name], spent = timed(lambda solve=solve: solve(cover, bonus, start, keep))
        seconds[name][objective].append(spent)
    assert len({tuple(chosen) for chosen in sets.values()}) == 1, "the selected sets differ"


def zoo(cover, bonus, start, keep) -> list[int]:
    return greedy(cover, bonus, keep, weight=1.0, start=start)[0]


def plain(cover, bonus, start, keep) -> list[int]:
    best, chosen = start.copy(), []
    for _ in range(keep):
        gain = bonus + np.maximum(cover, best).sum(1) - best.sum()
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        best = np.maximum(best, cover[chosen[-1]])
    return chosen


def has_apricot() -> bool:
    try:
        import apricot  # noqa: F401
    except ImportError:
        return False
    return True


def apricot() -> dict[str, Callable]:
    """The package's greedy optimisers, called as documented and over its compiled gains alone.

    As installed it compiles its gains anew for every selection, which takes seconds; here once, before any is timed.
    """
    import numba
    from apricot import CustomSelection, FacilityLocationSelection, MixtureSelection
    from apricot.optimizers import LazyGreedy, NaiveGreedy, TwoStageGreedy

    numba.set_num_threads(1)
    module = import_module("apricot.functions.facilityLocation")
    for name in ("calculate_gains", "calculate_gains_sieve"):
        setattr(module, name, cache(getattr(module, name)))

    class WithBonus(FacilityLocationSelection):
        def _calculate_gains(self, cover, idxs=None):
            idxs = self.idxs if idxs is None else idxs
            return self.bonus[idxs] + super()._calculate_gains(cover, idxs)

    def coverage(optimizer, cover, bonus, start, keep) -> list[int]:
        function = WithBonus(keep, metric="precomputed")
        function._initialize(cover)
        function.bonus = bonus
        function.current_values, function.current_values_sum = start.copy(), start.sum()
        optimizer(function).select(cover, keep)
        return [int(index) for index in function.ranking]

    def mixture(cover, bonus, start, keep) -> list[int]:
        """The modular term stands in the first column; where it is negative, it covers nothing."""
        rows = cover if (cover[:, 0] == bonus).all() else np.concatenate([bonus[:, None], cover], axis=1)
        functions = [CustomSelection(keep, lambda chosen: chosen[:, 0].sum()), FacilityLocationSelection(keep)]
        function = MixtureSelection(keep, functions, weights=np.ones(2))
        function._initialize(rows)
        NaiveGreedy(function).select(rows, keep)
        return [int(index) for index in function.ranking]

    coverage(NaiveGreedy, np.eye(4), np.zeros(4), np.zeros(4), 2)
    optimizers = {"two-stage": TwoStageGreedy, "naive": NaiveGreedy, "lazy": LazyGreedy}
    return {"apricot": mixture} | {f"coverage, {name}": partial(coverage, kind) for name, kind in optimizers.items()}


def cosines(concepts: np.ndarray) -> np.ndarray:
    unit = concepts / np.linalg.norm(concepts, axis=1, keepdims=True)
    return unit @ unit.T


def timed(call: Callable):
    begin = time.process_time()
    result = call()
    return result, time.process_time() - begin


def quantiles(seconds: list[float]) -> dict[str, float]:
    low, _, _, high = statistics.quantiles(seconds, n=5)
    return {
        "q20": round(1e3 * low, 3),
        "median": round(1e3 * statistics.median(seconds), 3),
        "q80": round(1e3 * high, 3),
    }


if __name__ == "__main__":
    main()
