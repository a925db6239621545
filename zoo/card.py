"""MODEL_CARD.md: what a person who finds the weights needs to know, in the form the Hugging Face Hub renders."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from zoo import catalogue
from zoo.catalogue import Entry
from zoo.errors import UserError
from zoo.next_steps import to_ask
from zoo.results import LABELS, NESTED

SHOWN_CONCEPTS = 60
HUB_METRICS = {"acc": "accuracy", "rmse": "rmse", "mae": "mae", "r2": "r_squared"}


def model_card(info: dict[str, Any], result: dict[str, Any], entry: Entry | None = None, *, repo: str = "") -> str:
    """The card as Markdown with YAML front matter.

    Args:
        info: model.json (`zoo.artifact.ModelInfo` as a dict).
        result: result.json, whose `metrics` are what `zoo.evaluate.evaluate` returns; may be empty.
        entry: the model's catalogue entry, for paper, licence and published figures.
        repo: `org/name` on the Hub, for the usage snippet.
    """
    scores = result.get("metrics") or {}
    sections = [
        _front_matter(info, scores, entry),
        _heading(info, entry),
        _usage(info, repo),
        _scores(scores),
        _concepts(info, scores),
        _correction(scores.get("corrections") or []),
        _preprocessing(info.get("preprocessing") or {}),
        _published(entry),
        _limits(info, scores),
        _citation(entry),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def card_of(folder: Path, *, repo: str = "") -> str:
    """The card of a saved model, from its folder's model.json and, where it is, result.json.

    Raises:
        UserError: there is no model.json, or it cannot be read.
    """
    info = _read_json(folder / "model.json")
    result = _read_json(folder / "result.json") if (folder / "result.json").is_file() else {}
    entry = catalogue.entry(info["name"]) if info.get("name") in catalogue.names() else None
    return model_card(info, result, entry, repo=repo)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file: finish the training first") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: no valid JSON ({error}): write it again with train or convert") from None


def _front_matter(info: dict[str, Any], scores: dict[str, Any], entry: Entry | None) -> str:
    tags = ["bottleneck-zoo", info["name"], *([entry.family] if entry else [])]
    front: dict[str, Any] = {
        "tags": [*tags, *(["concept-bottleneck"] if info.get("concept_names") else [])],
        "library_name": "bottleneck-zoo",
        "license": (entry.license if entry else "").lower() or "other",
        "datasets": [info["data"]] if info.get("data") else [],
        "metrics": [hub for key, hub in HUB_METRICS.items() if key in scores],
    }
    if info.get("task") == "classification":
        front["pipeline_tag"] = "image-classification"
    text = yaml.safe_dump({key: value for key, value in front.items() if value}, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---"


def _heading(info: dict[str, Any], entry: Entry | None) -> str:
    title = entry.title if entry else info["name"]
    trained = f" trained on {info['data']}" if info.get("data") else ""
    classes = info.get("class_names") or []
    lines = [f"# {title}{trained}", ""]
    if entry and entry.summary:
        lines += [entry.summary, ""]
    lines.append(f"- Model: `{info['name']}` of the Bottleneck Zoo {info.get('zoo_version', '')}".rstrip())
    if entry:
        lines.append(f"- Paper: [{entry.paper}]({entry.url})")
    if classes:
        kind = "Classes" if info.get("task") == "classification" else "Targets"
        lines.append(f"- {kind} ({len(classes)}): {_listed(classes)}")
    return "\n".join(lines)


def _usage(info: dict[str, Any], repo: str) -> str:
    if repo:
        fetch = f'from huggingface_hub import snapshot_download\n\nfolder = snapshot_download("{repo}")'
    else:
        fetch = 'folder = "."  # with model.safetensors in it'
    shown = "output.concepts" if info.get("concept_names") else "output.prediction"
    ask, gives = to_ask(info, "FOLDER", "image.png")
    predict = "python -m zoo predict FOLDER image.png\n" if ask.startswith("explain") else ""
    return f"""## Use

```python
import zoo
{fetch}
model = zoo.load(folder)
print(model.info.class_names, model.info.preprocessing)
output = model(images)  # (B, C, H, W), through model.info.preprocessing
print({shown})
```

```bash
{predict}python -m zoo {ask}  # {gives}
```"""


def _scores(scores: dict[str, Any]) -> str:
    rows = [(label, _number(scores[key])) for key, label in LABELS.items() if key in scores]
    rows += [(key, _number(value)) for key, value in scores.items() if key not in (*LABELS, *NESTED)]
    rows += [(LABELS[key], f"not measured: {reason}") for key, reason in scores.get("not_measured", {}).items()]
    if not rows:
        return "## Results\n\nNot evaluated yet."
    samples = f" on {scores['samples']} test samples" if scores.get("samples") else ""
    return f"## Results{samples}\n\n" + _table(("measure", "value"), rows)


def _concepts(info: dict[str, Any], scores: dict[str, Any]) -> str:
    names = info.get("concept_names") or []
    if not names:
        return ""
    each = scores.get("per_concept") or {}
    rows = [(name, _number(each[name]) if name in each else "-") for name in names[:SHOWN_CONCEPTS]]
    more = f"\n\n... and {len(names) - SHOWN_CONCEPTS} more." if len(names) > SHOWN_CONCEPTS else ""
    removed = (info.get("extra") or {}).get("removed_concepts") or {}
    more += "".join(f"\n\nRemoved ({why}): {_listed(gone)}." for why, gone in removed.items())
    return f"## Concepts ({len(names)})\n\n" + _table(("concept", "accuracy"), rows) + more


def _correction(curve: list[tuple[int, float]]) -> str:
    if not curve:
        return ""
    rows = [(corrected, _number(accuracy)) for corrected, accuracy in curve]
    return (
        "## Accuracy as concepts are corrected\n\nThe first row is the model on its own; further rows have more "
        "groups of concepts set to the truth, over random orders.\n\n" + _table(("groups corrected", "accuracy"), rows)
    )


def _preprocessing(values: dict[str, Any]) -> str:
    if not values:
        return ""
    return "## Preprocessing\n\n" + _table(("step", "value"), values.items())


def _published(entry: Entry | None) -> str:
    if entry is None or not entry.figures:
        return ""
    columns = list(dict.fromkeys(key for figure in entry.figures for key in figure))
    rows = [[figure.get(key, "") for key in columns] for figure in entry.figures]
    return "## Published figures of the method (not of these weights)\n\n" + _table(columns, rows)


def _limits(info: dict[str, Any], scores: dict[str, Any]) -> str:
    lines = ["- Scores hold for images like those of the test split; nothing is known of others."]
    if info.get("task") == "classification" and info.get("class_names"):
        lines.append("- Every image gets one of the classes above, also one that shows none of them.")
    if info.get("concept_names"):
        lines.append(
            "- Concepts are predictions too: one of low accuracy explains little, and a model may put more into a "
            "concept than its name says."
        )
    weak = [name for name, value in (scores.get("per_concept") or {}).items() if value < 0.8]
    if weak:
        lines.append(f"- Concepts below 80 % accuracy: {_listed(weak)}.")
    return "## Limits\n\n" + "\n".join(lines)


def _citation(entry: Entry | None) -> str:
    if entry is None:
        return ""
    reference = f" Reference implementation: {entry.reference}." if entry.reference else ""
    return f"## Citation\n\n{entry.paper}. {entry.url}.{reference}"


def _table(columns: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    columns = list(columns)
    return "\n".join([line(columns), "|" + "---|" * len(columns), *map(line, rows)])


def _number(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(names: list[str], most: int = 30) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names) - most} more)" if len(names) > most else "")
