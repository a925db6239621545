"""Concepts as the wire beside BottleFit's tensor: accuracy against the bytes that cross the link.

    python benchmarks/claims/link.py                   # concept_split for several rate weights, a minute a seed
    python benchmarks/claims/link.py --bits 8          # and with as many bytes as BottleFit's smallest code
    python benchmarks/claims/link.py --bottlefit       # and BottleFit at its smallest codes, minutes a seed

Digits, twelve concepts. `bytes` are what `pack` and `pack_sparse` (concept_split) and the wire format (BottleFit) send
for an image, whichever is shorter; `entropy_bits` is the ideal length of concept_split's code; accuracies are those
with the codes as sent.
"""

import argparse
import json

import torch
from common import FIGURES, SEEDS, record, spreads, trained

from zoo.models.contract import ZooModel

RATE_WEIGHTS = (0.0, 0.001, 0.01, 0.1, 1.0)
BITS = (1, 2)
BOTTLEFIT = ((1, 1), (1, 8))
"""Channels of the code and bits of each value."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bottlefit", action="store_true")
    parser.add_argument(
        "--bits", type=int, nargs="+", default=BITS, help="of a concept's score: 8 takes BottleFit's bytes"
    )
    args = parser.parse_args()
    settings = {
        f"concept_split bits={bits} rate_weight={weight}": (
            "model=concept_split",
            "backbone.widths=[16,32,64]",
            f"model.bits={bits}",
            f"model.rate_weight={weight}",
            "trainer.max_epochs=15",
        )
        for bits in args.bits
        for weight in RATE_WEIGHTS
    }
    if args.bottlefit:
        settings = {
            f"bottlefit channels={channels} bits={bits}": (
                "model=bottlefit",
                "model.network=resnet10",
                f"model.bottleneck_channels={channels}",
                f"model.num_bits={bits}",
                "trainer.max_epochs=15",
            )
            for channels, bits in BOTTLEFIT
        }
    figures = {}
    for name, words in settings.items():
        figures[name] = spreads([measure(*words, "data=digits", f"seed={seed}") for seed in SEEDS])
        known = json.loads(FIGURES.read_text()).get("link", {}).get("figures", {}) if FIGURES.is_file() else {}
        record(
            "link", "accuracy against bytes on the link, concepts beside a tensor", known | figures, data="data=digits"
        )


def measure(*words: str) -> dict[str, float]:
    datamodule, model = trained(*words)
    result = {}
    for split, loader in (("val", datamodule.val_dataloader()), ("test", datamodule.test_dataloader())):
        result |= {f"{split}_{key}": value for key, value in on(model, loader).items()}
    return result


@torch.no_grad()
def on(model: ZooModel, loader) -> dict[str, float]:
    answers, sizes, bits = [], [], []
    for batch in loader:
        output = model.eval()(batch["image"])
        answers.append((output.prediction.argmax(1) == batch["label"]).float())
        found = model.diagnostics(output, batch)
        bits.append(found.get("rate_bits", torch.zeros(len(batch["label"]))))
        ways = [value.float() for name, value in found.items() if name.startswith("code_bytes")]
        sizes.append(torch.stack([way.expand(len(batch["label"])) for way in ways]))
    return {
        "acc": float(torch.cat(answers).mean()),
        "bytes": float(torch.cat(sizes, 1).mean(1).min()),
        "entropy_bits": float(torch.cat(bits).mean()),
    }


if __name__ == "__main__":
    main()
