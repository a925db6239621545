"""What the small CLIP that ships with the zoo is worth, and how it came to be.

    OMP_NUM_THREADS=1 python -m zoo train experiment=shapes_clip trainer.accelerator=cpu
    python benchmarks/shapes_clip.py                     the weights that ship
    python benchmarks/shapes_clip.py --run latest        a finished run instead
    python benchmarks/shapes_clip.py --run latest --ship [--cpu-seconds S]   and ship it

Zero-shot accuracy on 2,000 newly drawn scenes of the combinations of colour, fill and shape that no training picture
and no caption of the experiment has. `--ship` rounds the towers to half precision, writes them and their hash to
zoo/assets, and the figures to shapes_clip.json.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from zoo.artifact import find_weights
from zoo.data.shapes import ShapesDataModule
from zoo.environment import versions
from zoo.models import shapes_clip, word_clip
from zoo.models.clip_backbone import Clip
from zoo.models.vision.clip import CLIP
from zoo.tasks.evaluation import predict, score

ASSETS = Path(shapes_clip.__file__).resolve().parent.parent / "zoo" / "assets"
UNSEEN: dict[str, Any] = {"held_out": 12, "held_out_from": ("shape", "colour", "fill")}
LABELS = (("colour", "fill", "shape"), ("fill", "shape"), ("colour", "shape"))
COMMAND = "OMP_NUM_THREADS=1 python -m zoo train experiment=shapes_clip trainer.accelerator=cpu"


def zero_shot(backbone: Clip, *, label_from: tuple[str, ...], scenes: int = 2000, seed: int = 1000) -> dict[str, Any]:
    """Accuracies on scenes of held-out combinations, drawn with another seed than the experiment's."""
    data = ShapesDataModule(
        train_size=1, val_size=1, test_size=scenes, label_from=label_from, seed=seed, preprocessing=None, **UNSEEN
    )
    assert backbone.preprocessing is not None
    data.use_preprocessing(backbone.preprocessing)
    facts = data.facts
    model = CLIP(
        backbone=backbone,
        class_names=facts.class_names,
        concept_names=facts.concept_names,
        concept_groups=facts.concept_groups,
    )
    found = score(predict(model, data.test_dataloader()), task="classification")
    return {name: round(value, 4) for name, value in found.items() if name.endswith("acc")}


def halves(run: str) -> dict[str, torch.Tensor]:
    """The towers of a run in half precision."""
    state = load_file(find_weights(run))
    return {key: value.half() for key, value in state.items() if key.startswith(word_clip.PREFIX)}


def ship(run: str) -> None:
    path = ASSETS / f"{shapes_clip.NAME}.safetensors"
    path.write_bytes(save(halves(run)))
    description = path.with_suffix(".json")
    known = json.loads(description.read_text(encoding="utf-8"))
    known |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    known |= {"command": COMMAND, "license": "Apache-2.0"}
    description.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    shapes_clip.facts.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a run of the experiment, or latest")
    parser.add_argument("--ship", action="store_true", help="write the weights, their hash and the figures")
    parser.add_argument("--cpu-seconds", type=float, help="user and system time of the training, for the record")
    options = parser.parse_args()
    before = None
    if options.run:
        exact = Clip(name=shapes_clip.NAME, pretrained=str(find_weights(options.run))).eval()
        before = {" ".join(label): zero_shot(exact, label_from=label) for label in LABELS}
        print(json.dumps({"single precision": before}, indent=2))
    if options.ship:
        ship(options.run)
    if options.run and not options.ship:
        return
    shipped = Clip(name=shapes_clip.NAME, pretrained=shapes_clip.TAG).eval()
    after = {" ".join(label): zero_shot(shipped, label_from=label) for label in LABELS}
    print(json.dumps({"as shipped": after}, indent=2))
    if options.ship:
        result = json.loads((find_weights(options.run).parent / "result.json").read_text())
        figures = {
            "command": COMMAND,
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores shared with other work, one thread",
            "versions": {name: versions()[name] for name in ("python", "torch", "open_clip_torch", "numpy")},
            "training_wall_seconds": result["seconds"],
            "training_cpu_seconds": options.cpu_seconds,
            "parameters": result["metrics"]["parameters"],
            "zero_shot_on_2000_scenes_of_12_held_out_combinations": {"single": before, "as_shipped": after},
        }
        Path(__file__).with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
