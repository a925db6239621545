"""TF-TTI gains on another camera from four labelled images of each class, and loses nothing on its own.

    python benchmarks/claims/repair.py

A CBM on the shipped CLIP's features; `domain=shifted` has a warm cast, half the contrast and three times the noise. Ten
draws of the support images from the shifted training split for each training. Two class rules: colour and shape, whose
concepts speak too much or too little under the cast, and fill and shape, whose concepts move by an offset: no mask and
no gain takes that back.
"""

import copy

import torch
from common import SEEDS, features, record, right, spreads, trained

from zoo.data.shapes import ShapesDataModule

DRAWS, IMAGES = 10, 4
RULES = (("colour", "shape"), ("fill", "shape"))


def main() -> None:
    figures = {}
    for rule in RULES:
        rows = [row for seed in SEEDS for row in measure(rule, seed)]
        figures[" and ".join(rule)] = spreads(rows)
    record(
        "tf_tti",
        "TF-TTI gains on the shifted domain without losing on the source",
        figures,
        data="data=shapes backbone=shapes_clip data.train_size=2000 trainer.max_epochs=30",
        support=f"{IMAGES} images of each class, {DRAWS} draws for each training; spread over all of them",
    )


def measure(rule: tuple[str, ...], seed: int) -> list[dict[str, float]]:
    words = ["data=shapes", "model=tf_tti", "backbone=shapes_clip", "data.train_size=2000", "trainer.max_epochs=30"]
    datamodule, model = trained(*words, f"data.label_from=[{','.join(rule)}]", f"seed={seed}")
    shifted = ShapesDataModule(
        train_size=400,
        val_size=1,
        test_size=1000,
        domain="shifted",
        label_from=rule,
        batch_size=64,
        num_workers=0,
        seed=seed,
    )
    shifted.use_preprocessing(datamodule.preprocessing)
    source, target = features(model, datamodule)["test"], features(model, shifted)
    before = {"source": float(right(model, source).mean()), "target": float(right(model, target["test"]).mean())}
    rows = []
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(draw)
        support = target["train"]
        chosen = torch.cat(
            [
                rows_of[torch.randperm(len(rows_of), generator=generator)[:IMAGES]]
                for rows_of in ((support.labels == label).nonzero()[:, 0] for label in support.labels.unique())
            ]
        )
        adapted = copy.deepcopy(model)
        repair = adapted.adapt([{"features": support.features[chosen], "label": support.labels[chosen]}])
        after = float(right(adapted, target["test"]).mean())
        on = float(right(adapted, source).mean())
        adapted.domain = "source"
        rows.append(
            {
                "target_before": before["target"],
                "target_after": after,
                "target_gain": after - before["target"],
                "source_before": before["source"],
                "source_after_domain_source": float(right(adapted, source).mean()),
                "source_after_domain_target": on,
                "masked": float(repair.masked.sum()),
                "amplified": float((repair.gain != 1).sum()),
            }
        )
    return rows


if __name__ == "__main__":
    main()
