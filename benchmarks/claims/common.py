"""What the claim scripts share: data and trained models by the command line's own words, and one file of figures.

Each script beside this file reproduces one claim on small data, with several seeds, and writes its entry of
benchmarks/claims.json. Whatever is chosen is chosen on the validation split; the test split is read once.
"""

import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from zoo.build import build_datamodule, build_model
from zoo.config import compose_config
from zoo.data.module import ZooDataModule
from zoo.models.concept.gather import Gathered, gather
from zoo.models.contract import ZooModel
from zoo.runs import create_run
from zoo.train import Session, fit, use_feature_cache

FIGURES = Path(__file__).resolve().parent.parent / "claims.json"
SEEDS = (0, 1, 2)
SHARED = ("trainer.accelerator=cpu",)


def untrained(*words: str) -> tuple[dict[str, Any], ZooDataModule, ZooModel]:
    """Configuration, data and model as `python -m zoo train WORDS` makes them."""
    config = compose_config([*SHARED, *words])
    pl.seed_everything(config["seed"], verbose=False)
    datamodule = build_datamodule(config)
    model = build_model(config, datamodule)
    datamodule.setup()
    return config, datamodule, model


def trained(*words: str) -> tuple[ZooDataModule, ZooModel]:
    """The same, trained: the best weights by the validation split."""
    config, datamodule, model = untrained(*words)
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(folder, config["task_name"], "claim")
        session = Session(config, run, datamodule, model)
        use_feature_cache(session)
        model.prepare(session.datamodule)
        fit(session)
    return datamodule, model.eval()


def features(model: ZooModel, datamodule: ZooDataModule) -> dict[str, Gathered]:
    """Features, labels and concepts of the three splits."""
    loaders = {
        "train": datamodule.train_dataloader,
        "val": datamodule.val_dataloader,
        "test": datamodule.test_dataloader,
    }
    return {split: gather(model.backbone, loader()) for split, loader in loaders.items()}


@torch.no_grad()
def right(model: ZooModel, split: Gathered) -> torch.Tensor:
    """(N,) whether each image of a split is put into its class."""
    return (model.eval().forward_features(split.features).prediction.argmax(1) == split.labels).float()


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, and the values."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {
        "mean": round(statistics.mean(values), 4),
        "std": round(deviation, 4),
        "values": [round(value, 4) for value in values],
    }


def spreads(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """The spread of each figure over rows of the same figures."""
    return {key: spread([row[key] for row in rows]) for key in rows[0]}


def record(claim: str, statement: str, figures: dict[str, Any], **setting: Any) -> None:
    """Write one claim's entry and print it."""
    entry = {
        "claim": statement,
        "command": " ".join(["python", f"benchmarks/claims/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seeds": list(SEEDS),
        "setting": setting,
        "figures": figures,
    }
    known = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    FIGURES.write_text(json.dumps(known | {claim: entry}, indent=2) + "\n")
    print(json.dumps({claim: entry}, indent=2))
