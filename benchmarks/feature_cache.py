"""How much faster a head trains on cached features than through the frozen resnet18 that they come from.

    python benchmarks/feature_cache.py [--images 300] [--cached 50000] [--write]

Both train the same linear head for an epoch, in one run and with the same loader settings: through the backbone on
`--images` pictures of 224 px, and on the cached features of as many pictures and of `--cached` ones. The encoder has
random weights, which cost the same as trained ones; the features of the many pictures are drawn at random, so that
filling the cache does not take an hour. `--write` stores the figures in feature_cache.csv.
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
from torch.nn.functional import cross_entropy

from zoo.data.feature_cache import cache_features
from zoo.data.shapes import ShapesDataModule

WIDTH, CLASSES = 512, 12


def epoch(loader, backbone=None) -> float:
    """Seconds of one epoch of training a linear head, features read from the batch or made by the backbone."""
    head = torch.nn.Linear(WIDTH, CLASSES)
    optimizer = torch.optim.Adam(head.parameters())
    start = time.perf_counter()
    for batch in loader:
        if backbone is None:
            features = batch["features"]
        else:
            with torch.no_grad():
                features = backbone(batch["image"])
        loss = cross_entropy(head(features), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--cached", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()

    backbone = timm.create_model("resnet18", num_classes=0).eval()
    data = ShapesDataModule(train_size=options.images, val_size=8, test_size=8, pixels=224)
    many = ShapesDataModule(train_size=options.cached, val_size=8, test_size=8, pixels=16)
    with tempfile.TemporaryDirectory() as folder:
        cached = cache_features(data, backbone, "random weights", folder=folder)
        drawn = cache_features(many, lambda images: torch.randn(len(images), WIDTH), "drawn", folder=folder)
        start = time.perf_counter()
        cached.setup()
        filling = time.perf_counter() - start
        drawn.setup()
        slow, fast, fast_many = [], [], []
        for _ in range(options.epochs):
            slow.append(epoch(data.train_dataloader(), backbone))
            fast.append(epoch(cached.train_dataloader()))
            fast_many.append(epoch(drawn.train_dataloader()))
    a_picture = statistics.median(slow) / options.images
    figure = {
        "command": f"python benchmarks/feature_cache.py --images {options.images} --cached {options.cached}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads",
        "versions": f"torch {torch.__version__}, timm {timm.__version__}, torchvision {torchvision.__version__}",
        "shape": f"{options.images} x 3 x 224 x 224, batch {data.batch_size}, float32",
        "backbone_epoch_seconds": [round(value, 3) for value in slow],
        "cached_epoch_seconds": [round(value, 4) for value in fast],
        "many_cached_epoch_seconds": [round(value, 3) for value in fast_many],
        "filling_seconds": round(filling, 2),
        "ratio_of_medians": round(statistics.median(slow) / statistics.median(fast), 1),
        "ratio_a_picture_many": round(a_picture / (statistics.median(fast_many) / options.cached), 1),
    }
    print(json.dumps(figure, indent=2))
    if options.write:
        with Path(__file__).with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, figure.keys())
            writer.writeheader()
            writer.writerow(figure)


if __name__ == "__main__":
    main()
