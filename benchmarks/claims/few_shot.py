"""LaBo over a linear probe from one image of each class on, with HeBA and APT in the same protocol.

    python benchmarks/claims/few_shot.py                       # LaBo and the probe at 1, 2, 4, 8, 16 and all images
    python benchmarks/claims/few_shot.py --tuned heba apt      # HeBA and APT too, at 1 and 16: minutes
    python benchmarks/claims/few_shot.py --plot few_shot.png

Scenes, twelve classes of fill and shape; features of the shipped CLIP. LaBo's candidates stand in for sentences of a
language model: what the name of a class implies, with every colour, size, place and background. The images of a class
are drawn anew for each seed; penalties, rates and epochs are chosen on 200 validation scenes, the test split has 1000.
"""

import argparse
import json
from types import SimpleNamespace

import torch
from common import FIGURES, SEEDS, features, record, right, spread, untrained
from torch.nn.functional import normalize

from zoo.data.scenes import ATTRIBUTES
from zoo.models.concept.gather import Gathered
from zoo.models.concept.glm_saga import elastic_net
from zoo.models.contract import ZooModel

SHOTS = (1, 2, 4, 8, 16, None)
TUNED_SHOTS = (1, 16)
WORDS = ("data=shapes", "backbone=shapes_clip", "data.train_size=1000", "data.val_size=200")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tuned", nargs="*", default=[], choices=["heba", "apt"])
    parser.add_argument("--plot", metavar="FILE.png")
    args = parser.parse_args()
    rows: dict[str, dict[str, list[float]]] = {}
    for seed in SEEDS:
        for method, shot, accuracy in measure(seed, args.tuned):
            rows.setdefault(method, {}).setdefault("all" if shot is None else str(shot), []).append(accuracy)
    figures = {method: {shot: spread(found) for shot, found in by.items()} for method, by in rows.items()}
    # tuned towers that this call did not train keep their figures
    known = json.loads(FIGURES.read_text()).get("few_shot", {}).get("figures", {}) if FIGURES.is_file() else {}
    figures = {method: by for method, by in known.items() if method in ("heba", "apt")} | figures
    record("few_shot", "LaBo is ahead of a linear probe at one image of each class", figures, data=" ".join(WORDS))
    if args.plot:
        plot(figures, args.plot)


def measure(seed: int, tuned: list[str]):
    """(method, images of each class or None, test accuracy)."""
    _, datamodule, labo = untrained("model=labo", "model.normalise=true", *WORDS, f"seed={seed}")
    splits = features(labo, datamodule)
    yield "zero-shot", 0, zero_shot(labo, splits["test"], datamodule.facts.class_names)
    for shot in SHOTS:
        rows = few(splits["train"], shot, seed)
        chosen = Gathered(splits["train"].features[rows], splits["train"].labels[rows], None)
        yield "linear probe", shot, probe(chosen, splits["val"], splits["test"])
        yield "LaBo", shot, fit_labo(chosen, splits["val"], splits["test"], datamodule, seed)
    for name in tuned:
        for shot in TUNED_SHOTS:
            yield name, shot, fit_tuned(name, few(splits["train"], shot, seed), seed)


def few(split: Gathered, shot: int | None, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(split.labels), generator=generator)
    return torch.cat([order[split.labels[order] == label][:shot] for label in split.labels.unique()])


def zero_shot(model: ZooModel, test: Gathered, names) -> float:
    with torch.no_grad():
        words = normalize(model.backbone.encode_text([f"a {name}" for name in names]), dim=1)
    return float(((normalize(test.features, dim=1) @ words.T).argmax(1) == test.labels).float().mean())


def probe(train: Gathered, val: Gathered, test: Gathered) -> float:
    """Penalised softmax regression on cosine-normalised features, the penalty by validation."""
    x = normalize(train.features, dim=1) * 10
    found = []
    for lam in (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4):
        head = elastic_net(x, train.labels, num_classes=12, lam=lam, alpha=0.0)
        found.append(
            tuple(
                float(
                    ((normalize(s.features, dim=1) * 10 @ head.weight.T + head.bias).argmax(1) == s.labels)
                    .float()
                    .mean()
                )
                for s in (val, test)
            )
        )
    return max(found, key=lambda pair: pair[0])[1]


def sentences(names) -> dict[str, list[str]]:
    """What the name of each class implies."""
    return {name: [text for word in name.split() for text in (word, f"a {word}")] + varied(name) for name in names}


def varied(name: str) -> list[str]:
    fill, shape = name.split()
    return [
        f"a {name}",
        *(f"a {fill} {colour} {shape}" for colour in ATTRIBUTES["colour"]),
        *(f"a {size} {name}" for size in ATTRIBUTES["size"]),
        *(f"a {name} on the {position}" for position in ATTRIBUTES["position"]),
        *(f"a {name}, against {background}" for background in ATTRIBUTES["background"]),
    ]


def fit_labo(train: Gathered, val: Gathered, test: Gathered, datamodule, seed: int) -> float:
    """LaBo with sentences, Adam on the whole batch; rate and number of steps by validation, no step included."""
    from zoo.models.concept.labo import LaBo

    _, _, built = untrained("model=labo", *WORDS, f"seed={seed}")
    names = datamodule.facts.class_names
    batch = {"features": train.features, "label": train.labels, "index": torch.arange(len(train.labels))}
    best = (-1.0, -1.0)
    for lr in (1e-2, 1e-1):
        model = LaBo(
            backbone=built.backbone,
            num_outputs=len(names),
            class_names=names,
            candidates=sentences(names),
            per_class=8,
            normalise=True,
            init=5.0,
        )
        model.prepare(SimpleNamespace(train_dataloader=lambda: [batch], facts=datamodule.facts))
        best = max(best, steps(model, batch, val, test, lr=lr, count=100, every=10), key=lambda pair: pair[0])
    return best[1]


def steps(model, batch, val: Gathered, test: Gathered, *, lr: float, count: int, every: int) -> tuple[float, float]:
    """(validation, test) accuracy at the best of the checked steps."""
    optimizer = torch.optim.Adam([model.association], lr=lr)
    best = (-1.0, -1.0)
    for step in range(count + 1):
        if step % every == 0:
            score = float(right(model, val).mean())
            if score > best[0]:
                best = score, float(right(model, test).mean())
            model.train()
        optimizer.zero_grad()
        model.loss(model.forward_features(batch["features"]), batch)["loss"].backward()
        optimizer.step()
    return best


def fit_tuned(name: str, rows: torch.Tensor, seed: int, *, epochs: int = 9) -> float:
    """HeBA or APT on the images themselves, Adam; the best of every third epoch by validation."""
    extra = ("model.prompts=16",) if name == "apt" else ()
    _, datamodule, model = untrained(f"model={name}", "model.template='a {}'", *extra, *WORDS, f"seed={seed}")
    items = [datamodule.train_set[int(row)] for row in rows]
    images, labels = (
        torch.stack([item["image"] for item in items]),
        torch.tensor([int(item["label"]) for item in items]),
    )
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, best = torch.optim.Adam(learning, lr=1e-3), (-1.0, model.state_dict())
    for epoch in range(epochs + 1):
        if epoch % 3 == 0:
            score = share_right(model, datamodule.val_dataloader())
            if score > best[0]:
                best = score, {key: value.clone() for key, value in model.state_dict().items()}
        model.train()
        for part in torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch)).split(16):
            optimizer.zero_grad()
            batch = {"image": images[part], "label": labels[part]}
            model.loss(model(batch["image"]), batch)["loss"].backward()
            optimizer.step()
    model.load_state_dict(best[1])
    return share_right(model, datamodule.test_dataloader())


@torch.no_grad()
def share_right(model: ZooModel, loader) -> float:
    model.eval()
    answers = [(model(batch["image"]).prediction.argmax(1) == batch["label"]).float() for batch in loader]
    return float(torch.cat(answers).mean())


def plot(figures, path: str) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    places = {str(shot or "all"): place for place, shot in enumerate(SHOTS)}
    for method, by in figures.items():
        known = [(places[shot], found) for shot, found in by.items() if shot in places]
        if known:
            x, found = zip(*known)
            mean, std = ([row[key] for row in found] for key in ("mean", "std"))
            axes.errorbar(x, mean, yerr=std, marker="o", capsize=3, label=method)
        else:
            axes.axhline(next(iter(by.values()))["mean"], linestyle=":", color="grey", label=method)
    axes.set_xticks(list(places.values()), list(places))
    axes.set(xlabel="images of each class", ylabel="test accuracy")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
