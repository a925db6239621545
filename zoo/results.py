"""The table at the end of a training or an evaluation."""

from pathlib import Path
from typing import Any

from zoo.artifact import read_info
from zoo.next_steps import to_ask
from zoo.terminal import print_table

LABELS = {
    "acc": "accuracy",
    "acc_all_wrong": "accuracy, all concepts set wrongly (low is good)",
    "balanced_acc": "balanced accuracy",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "explained variance (R²)",
    "concept_acc": "concept accuracy",
    "concept_acc_all": "images with all concepts right",
    "correction_gain": "gain, all concepts corrected",
    "acc_nec5": "accuracy at 5 concepts a class (NEC 5)",
    "acc_nec5_random": "the same, random directions (control)",
    "leakage": "leakage (class told beyond the true concepts)",
    "parameters": "parameters",
    "macs": "multiply-accumulates an image",
    "latency_ms": "CPU latency, one image (ms)",
    "izx_bits": "I(X;Z), upper bound (bits)",
    "izy_bits": "I(Z;Y), lower bound (bits)",
    "code_bytes": "bytes on the link, an image",
    "code_bytes_zlib": "bytes on the link, deflated",
    "code_bytes_sparse": "bytes on the link, absent concepts left out",
    "rate_bits": "ideal length of the code (bits)",
}
NESTED = ("per_concept", "corrections", "corrections_uncertain", "corrections_wrong", "not_measured", "samples")
POINTS = ("correction_gain", "leakage")
"""Differences of two accuracies."""


def headline(result: dict[str, Any]) -> tuple[str, float]:
    """The one figure that a table of runs shows."""
    metrics = result["metrics"]
    name = "acc" if "acc" in metrics else "rmse"
    return LABELS[name], metrics[name]


def rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of every figure, the plain ones first, in the order of `LABELS`."""
    order = {name: place for place, name in enumerate(LABELS)}
    plain = sorted((name for name in metrics if name not in NESTED), key=lambda name: order.get(name, len(order)))
    found = [(LABELS.get(name, name), text(name, metrics[name])) for name in plain]
    found += [(LABELS.get(name, name), f"not measured: {why}") for name, why in metrics.get("not_measured", {}).items()]
    found += [(f"concept {name}", f"{value:.1%}") for name, value in metrics.get("per_concept", {}).items()]
    if curve := metrics.get("corrections"):
        last = curve[-1][0]
        found += [(f"accuracy, {n} of {last} concept groups corrected", f"{value:.1%}") for n, value in curve]
    return found


def text(name: str, value: Any) -> str:
    """A figure as a person reads it."""
    if name in POINTS:
        return f"{100 * value:+.1f} points"
    if name.endswith("acc") or name.startswith(("acc_", "concept_acc")):
        return f"{value:.1%}"
    if name in ("parameters", "macs"):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_result(result: dict[str, Any]) -> None:
    """Print the result table, where things are, and what to type next."""
    took = f", {result['seconds']:g} s" if "seconds" in result else ""
    title = f"{result['model']} on {result['data']} ({result['metrics']['samples']} test images{took})"
    print_table(["measure", "value"], rows(result["metrics"]), title=title)
    if folder := result.get("run"):
        print(f"\nrun      {folder}")
        print(f"report   {folder}/report.html")
        run = "latest" if (Path("outputs") / "latest").resolve() == Path(folder).resolve() else folder
        ask, gives = to_ask(vars(read_info(Path(folder) / "model.safetensors")), run)
        commands = {
            f"python -m zoo {ask}": gives,
            f"python -m zoo export {run} --format onnx": "a file to deploy, checked against this model",
        }
        width = max(map(len, commands))
        for word, (command, what) in zip(("next", ""), commands.items()):
            print(f"{word:8} {command:{width}}    {what}")
