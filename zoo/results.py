"""The table at the end of a training or an evaluation."""

from typing import Any

from zoo.terminal import print_table

LABELS = {
    "acc": "accuracy",
    "balanced_acc": "balanced accuracy",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "explained variance (R²)",
    "concept_acc": "concept accuracy",
    "concept_acc_all": "images with all concepts right",
    "parameters": "parameters",
    "macs": "multiply-accumulates an image",
    "latency_ms": "CPU latency, one image (ms)",
    "izx_bits": "I(X;Z), upper bound (bits)",
    "izy_bits": "I(Z;Y), lower bound (bits)",
    "code_bytes": "bytes on the link, an image",
    "code_bytes_zlib": "bytes on the link, deflated",
}
NESTED = ("per_concept", "corrections", "samples")


def headline(result: dict[str, Any]) -> tuple[str, float]:
    """The one figure that a table of runs shows."""
    metrics = result["metrics"]
    name = "acc" if "acc" in metrics else "rmse"
    return LABELS[name], metrics[name]


def rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of every figure, the plain ones first."""
    found = [(LABELS.get(name, name), text(name, value)) for name, value in metrics.items() if name not in NESTED]
    found += [(f"concept {name}", f"{value:.1%}") for name, value in metrics.get("per_concept", {}).items()]
    if curve := metrics.get("corrections"):
        last = curve[-1][0]
        found += [(f"accuracy, {n} of {last} concept groups corrected", f"{value:.1%}") for n, value in curve]
    return found


def text(name: str, value: Any) -> str:
    """A figure as a person reads it."""
    if name.endswith("acc") or name == "concept_acc_all":
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
        concepts = "concept_acc" in result["metrics"]
        verb, gives = ("explain", "which concepts spoke for the answer") if concepts else ("predict", "its answer")
        print(f"next     python -m zoo {verb} latest IMAGE           {gives}")
        print("         python -m zoo export latest --format onnx    a file to deploy, checked against this model")
