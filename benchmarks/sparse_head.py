"""Sparse head: the zoo's elastic-net solver against scikit-learn's saga, to the same objective value.

    python benchmarks/sparse_head.py            # 10,000 samples x 512 concepts, 10 classes; about three minutes

Both run on one thread. A solver's time is that of its quickest fit whose objective is within 1e-4 (relative) of the
float64 optimum. Writes sparse_head.json beside this file: the figures with machine, versions, shapes and date.
"""

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import sklearn
import torch
from machine import cpu
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from zoo.models.concept.glm_saga import elastic_net, objective

ALPHA, WITHIN = 0.99, 1e-4
ITERATIONS = (10, 20, 30, 40, 60, 80, 120, 160, 240)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--concepts", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--lam", type=float, nargs="+", default=[7e-4, 2e-3])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, labels = problem(args.samples, args.concepts, args.classes)
    rows = [compare(x, labels, args.classes, lam, args.repeats) for lam in args.lam]
    record = {
        "command": " ".join(["python benchmarks/sparse_head.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": cpu(),
        "threads": 1,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "sklearn": sklearn.__version__},
        "shape": [args.samples, args.concepts, args.classes],
        "rows": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    for row in rows:
        print(
            f"lam {row['lam']:g}: zoo {row['zoo_seconds']['median']:.2f} s, "
            f"scikit-learn saga {row['sklearn_seconds']['median']:.2f} s, {row['ratio']:.1f}x"
        )


def problem(samples: int, concepts: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated, standardised columns; labels from 5 % of the weights, with noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, concepts)) @ (
        np.eye(concepts) + 0.5 * rng.normal(size=(concepts,) * 2) / concepts**0.5
    )
    weight = rng.normal(size=(concepts, classes)) * (rng.random((concepts, classes)) < 0.05)
    labels = (x @ weight + rng.gumbel(size=(samples, classes))).argmax(1)
    standard = (x - x.mean(0)) / x.std(0, ddof=1)
    return torch.tensor(standard, dtype=torch.float32), torch.tensor(labels)


def compare(x: torch.Tensor, labels: torch.Tensor, classes: int, lam: float, repeats: int) -> dict:
    exact = elastic_net(x.double(), labels, num_classes=classes, lam=lam, tolerance=1e-5, max_iterations=20_000)
    best = float(objective(x.double(), labels, exact.weight, exact.bias, lam, ALPHA))

    def gap(weight: torch.Tensor, bias: torch.Tensor) -> float:
        return float(objective(x.double(), labels, weight.double(), bias.double(), lam, ALPHA)) / best - 1

    ours, seconds = timed(lambda: elastic_net(x, labels, num_classes=classes, lam=lam), repeats)
    assert gap(ours.weight, ours.bias) < WITHIN, "the zoo's solver stopped before the objective was reached"
    rival, rival_seconds, iterations = saga(x, labels, lam, gap)
    return {
        "lam": lam,
        "optimum": best,
        "effective_concepts": float((exact.weight.abs() > 1e-5).sum() / classes),
        "zoo_seconds": quantiles(seconds),
        "zoo_gap": gap(ours.weight, ours.bias),
        "zoo_iterations": ours.iterations,
        "sklearn_seconds": quantiles(rival_seconds),
        "sklearn_gap": rival,
        "sklearn_iterations": iterations,
        "ratio": statistics.median(rival_seconds) / statistics.median(seconds),
    }


def saga(x, labels, lam, gap) -> tuple[float, list[float], int]:
    """scikit-learn's quickest fit within the gap."""
    data, target = x.numpy(), labels.numpy()
    for iterations in ITERATIONS:
        model = LogisticRegression(
            solver="saga", l1_ratio=ALPHA, C=1 / (len(data) * lam), max_iter=iterations, tol=0, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            _, seconds = timed(lambda model=model: model.fit(data, target), 1)
        left = gap(torch.tensor(model.coef_), torch.tensor(model.intercept_))
        if left < WITHIN:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                _, more = timed(lambda model=model: model.fit(data, target), 2)
            return left, seconds + more, iterations
    raise SystemExit(f"scikit-learn is still {left:.2g} above the optimum after {ITERATIONS[-1]} iterations")


def timed(call, repeats: int):
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - begin)
    return result, seconds


def quantiles(seconds: list[float]) -> dict[str, float]:
    return {"low": min(seconds), "median": statistics.median(seconds), "high": max(seconds)}


if __name__ == "__main__":
    main()
