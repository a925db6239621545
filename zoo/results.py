"""The table at the end of a training or an evaluation."""

from typing import Any

from zoo.terminal import print_table

_LABELS = {
    "acc": "accuracy",
    "balanced_acc": "balanced accuracy",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "explained variance (R2)",
    "concept_acc": "concept accuracy",
    "concept_acc_all": "all concepts right",
    "parameters": "parameters",
    "macs": "multiply-accumulates an image",
    "latency_ms": "CPU latency, one image (ms)",
}
_NESTED = ("per_concept", "corrections", "samples")


def headline(result: dict[str, Any]) -> tuple[str, float]:
    """The one figure that a table of runs shows."""
    metrics = result["metrics"]
    name = "acc" if "acc" in metrics else "rmse"
    return _LABELS[name], metrics[name]


def rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of every figure, the plain ones first."""
    found = [(_LABELS.get(name, name), _text(name, value)) for name, value in metrics.items() if name not in _NESTED]
    found += [(f"concept {name}", f"{value:.1%}") for name, value in metrics.get("per_concept", {}).items()]
    if curve := metrics.get("corrections"):
        steps = sorted({round(i * (len(curve) - 1) / 4) for i in range(5)})
        found += [(f"accuracy, {n} of {len(curve) - 1} concepts corrected", f"{curve[n]:.1%}") for n in steps]
    return found


def _text(name: str, value: Any) -> str:
    if name.endswith("acc") or name == "concept_acc_all":
        return f"{value:.1%}"
    if name in ("parameters", "macs"):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_result(result: dict[str, Any]) -> None:
    """Print the result table, where things are, and what to type next."""
    title = (
        f"{result['model']} on {result['data']} ({result['metrics']['samples']} test images, {result['seconds']:g} s)"
    )
    print_table(["measure", "value"], rows(result["metrics"]), title=title)
    folder = result["run"]
    print(f"\nrun      {folder}")
    print(f"report   {folder}/report.html")
    print("next     python -m zoo explain latest IMAGE     which concepts spoke for the answer")
    print("         python -m zoo export latest --format onnx")
