"""An edit without data repairs a planted correlation: the background follows the class in training, never in the test.

    python benchmarks/claims/edit.py

PCBM on the shipped CLIP's features, with concept vectors learnt from the same, planted training images ("examples") or
taken from the text tower, which no planted image has touched ("text"). Each class forgets the four backgrounds, as
`python -m zoo edit RUN --class CLASS --concept background::fog ...` does; the class that is worst on the test is edited
alone first. Control: the same number of concepts that name the size and the place of the object.
"""

import copy
from types import SimpleNamespace

import torch
from common import SEEDS, features, record, right, spreads, untrained

PLANTED = (0.95, 1.0)


def main() -> None:
    found: dict[str, list[dict[str, float]]] = {}
    for planted in PLANTED:
        for seed in SEEDS:
            for source, row in measure(seed, planted).items():
                found.setdefault(f"{source}, {planted:.0%} planted", []).append(row)
    record(
        "edit",
        "removing the backgrounds from the head repairs a classifier that learnt a background for its class",
        {name: spreads(rows) for name, rows in found.items()},
        data="data=shapes data.train_size=2000, 12 classes, chance 0.083",
        worst_class="the one with the lowest test accuracy before the edit: named by the user who sees it",
    )


def measure(seed: int, planted: float) -> dict[str, dict[str, float]]:
    words = ("data=shapes", "backbone=shapes_clip", "model=pcbm", f"data.spurious={planted}", "data.train_size=2000")
    _, datamodule, first = untrained(*words, f"seed={seed}")
    splits = features(first, datamodule)
    result = {}
    for source in ("examples", "text"):
        _, _, model = untrained(*words, f"model.source={source}", f"seed={seed}")
        train = {"features": splits["train"].features, "label": splits["train"].labels}
        batch = train | {"concepts": splits["train"].concepts, "index": torch.arange(len(train["label"]))}
        model.prepare(SimpleNamespace(train_dataloader=lambda batch=batch: [batch]))
        result[source] = edits(model, splits, datamodule.facts.num_outputs)
    return result


def edits(model, splits, count: int) -> dict[str, float]:
    """Accuracy before and after, of all classes and of the worst one."""
    test, classes = splits["test"], range(count)
    names = list(model.concept_names)
    backgrounds = [k for k, name in enumerate(names) if name.startswith("background::")]
    others = [k for k, name in enumerate(names) if name.startswith(("size::", "position::"))]
    before = right(model, test)
    by_class = torch.stack([before[test.labels == label].mean() for label in classes])
    worst = int(by_class.argmin())
    alone, every, control = (
        edited(model, labels, k) for labels, k in (([worst], backgrounds), (classes, backgrounds), (classes, others))
    )
    mine = test.labels == worst
    return {
        "validation_before": float(right(model, splits["val"]).mean()),
        "before": float(before.mean()),
        "after": float(right(every, test).mean()),
        "after_control": float(right(control, test).mean()),
        "worst_class_before": float(before[mine].mean()),
        "worst_class_edited_alone": float(right(alone, test)[mine].mean()),
        "other_classes_before": float(before[~mine].mean()),
        "other_classes_worst_edited_alone": float(right(alone, test)[~mine].mean()),
        "other_classes_all_edited": float(right(every, test)[~mine].mean()),
    }


def edited(model, labels, concepts):
    changed = copy.deepcopy(model)
    for label in labels:
        changed.edit(label, concepts, normalise=False)
    return changed


if __name__ == "__main__":
    main()
