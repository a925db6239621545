"""DKVB forgets less than half of what a linear head forgets when classes come in groups, without replay or task id.

    python benchmarks/claims/forgetting.py

Protocol: `zoo.tasks.class_incremental`, groups of two classes, both models by the same plain SGD for the same epochs.
Digits: the pixels are the features; scenes: the shipped CLIP's. The keys are fitted to the training images of all
classes without labels (the paper fits them to another data set).
"""

import copy
from types import SimpleNamespace

import torch
from common import SEEDS, features, record, spreads, untrained

from zoo.models.backbone import Identity
from zoo.models.concept.dkvb import DKVB
from zoo.models.contract import Batch
from zoo.tasks.class_incremental import LinearHead, class_groups, class_incremental

EPOCHS = 50

SIZES = {"codebooks": 64, "pairs": 128, "key_dim": 8, "key_start": "kmeans"}


def main() -> None:
    figures = {name: spreads([compare(name, seed) for seed in SEEDS]) for name in ("digits", "shapes")}
    record(
        "forgetting",
        "DKVB forgets less than half of what a linear head does",
        figures,
        dkvb=SIZES,
        training="groups of 2 classes in a seeded order, 50 epochs each, SGD 0.3, batch 256, label smoothing 0.1",
        forgetting="accuracy on a class right after learning it minus at the end, mean over all but the last group",
    )


def compare(name: str, seed: int) -> dict[str, float]:
    train, test = read(name, seed)
    classes, width = len(test["label"].unique()), train["features"].shape[1]
    torch.manual_seed(seed)
    dkvb = DKVB(backbone=Identity(in_channels=width), num_outputs=classes, **SIZES)
    dkvb.prepare(
        SimpleNamespace(train_dataloader=lambda: [{"features": rows} for rows in train["features"].split(256)])
    )
    orders = {"incremental": class_groups(classes, size=2, seed=seed), "iid": [list(range(classes))]}
    result = {}
    for mode, groups in orders.items():
        learners = {
            "dkvb": copy.deepcopy(dkvb),
            "linear": LinearHead(feature_dim=width, num_outputs=classes),
        }
        for learner, model in learners.items():
            found = class_incremental(model, train, test, groups=groups, epochs=EPOCHS, seed=seed)
            result[f"{learner}_{mode}"] = found.final
            if mode == "incremental":
                result[f"{learner}_forgetting"] = found.forgetting
    return result


def read(name: str, seed: int) -> tuple[Batch, Batch]:
    """Features and labels of training and test images, standardised by the training images."""
    words = ("backbone=shapes_clip", "data.train_size=2000") if name == "shapes" else ()
    _, datamodule, model = untrained("model=pcbm", f"data={name}", *words, f"seed={seed}")
    if name == "digits":
        model.backbone = torch.nn.Flatten()
    splits = features(model, datamodule)
    mean, std = splits["train"].features.mean(0), splits["train"].features.std(0).clamp_min(1e-6)
    train, test = (
        {"features": (splits[split].features - mean) / std, "label": splits[split].labels}
        for split in ("train", "test")
    )
    return train, test


if __name__ == "__main__":
    main()
