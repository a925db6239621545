"""How much faster an epoch is when the features of a frozen resnet18 are read from the cache.

    python benchmarks/feature_cache.py [--images 300] [--write]

Both epochs are timed in one run, on the same pictures (data=shapes at 224 px), with the same loader settings. The
encoder has random weights, which cost the same as trained ones. `--write` stores the figure in feature_cache.csv.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
import torchvision

from zoo.data.feature_cache import cache_features
from zoo.data.shapes import ShapesDataModule


def seconds(loader, encode=None) -> float:
    """One epoch: read every batch, and encode its images where they are images."""
    start = time.perf_counter()
    with torch.no_grad():
        for batch in loader:
            if encode is not None:
                encode(batch["image"])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()

    backbone = timm.create_model("resnet18", num_classes=0).eval()
    data = ShapesDataModule(train_size=options.images, val_size=8, test_size=8, pixels=224)
    with tempfile.TemporaryDirectory() as folder:
        cached = cache_features(data, backbone, "random weights", folder=folder)
        start = time.perf_counter()
        cached.setup()
        filling = time.perf_counter() - start
        slow = [seconds(data.train_dataloader(), backbone) for _ in range(options.epochs)]
        fast = [seconds(cached.train_dataloader()) for _ in range(options.epochs)]
    ratio = statistics.median(slow) / statistics.median(fast)
    figure = {
        "command": f"python benchmarks/feature_cache.py --images {options.images} --epochs {options.epochs}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads",
        "versions": f"torch {torch.__version__}, timm {timm.__version__}, torchvision {torchvision.__version__}",
        "shape": f"{options.images} x 3 x 224 x 224, batch {data.batch_size}, float32",
        "encode_epoch_seconds": [round(value, 3) for value in slow],
        "cached_epoch_seconds": [round(value, 4) for value in fast],
        "filling_seconds": round(filling, 2),
        "ratio_of_medians": round(ratio, 1),
    }
    print(json.dumps(figure, indent=2))
    if options.write:
        with Path(__file__).with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, figure.keys())
            writer.writeheader()
            writer.writerow(figure)


if __name__ == "__main__":
    main()
