"""PCBM loses at most a point to a linear probe on the same features.

    python benchmarks/claims/probe.py

Features: the shipped CLIP on scenes; a network trained for the classes and then cut before its head, on digits. Both
heads are fitted on the training split, their penalties chosen on the validation split.
"""

import torch
from common import SEEDS, features, record, right, spreads, trained, untrained

from zoo.models.concept.glm_saga import elastic_net
from zoo.models.concept.pcbm import PCBM

PENALTIES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)


def main() -> None:
    figures = {name: spreads([compare(name, seed) for seed in SEEDS]) for name in ("shapes", "digits")}
    record(
        "pcbm_probe",
        "PCBM is within one point of a linear probe on its backbone's features",
        figures,
        penalties=PENALTIES,
        shapes="2000 training scenes, shapes_clip, 12 classes, 19 concepts",
        digits="convnet trained as model=vib for 8 epochs, 10 classes, 12 concepts",
    )


def compare(name: str, seed: int) -> dict[str, float]:
    if name == "shapes":
        words = ["data=shapes", "backbone=shapes_clip", "data.train_size=2000"]
        _, datamodule, model = untrained(*words, "model=pcbm", f"seed={seed}")
    else:
        datamodule, classifier = trained("data=digits", "model=vib", "trainer.max_epochs=8", f"seed={seed}")
        model = PCBM(
            backbone=classifier.backbone,
            num_outputs=datamodule.facts.num_outputs,
            concept_names=datamodule.facts.concept_names,
        )
    splits = features(model, datamodule)
    train, val, test = splits["train"], splits["val"], splits["test"]
    assert isinstance(model, PCBM)
    model.prepare(datamodule)
    with torch.no_grad():
        latent = model.forward_features(train.features).latent
    heads = []
    for lam in PENALTIES:
        model.lam = lam
        model.fit_head(latent, train.labels)
        heads.append((float(right(model, val).mean()), float(right(model, test).mean())))
    mean, std = train.features.mean(0), train.features.std(0).clamp_min(1e-6)
    probes = []
    for lam in PENALTIES:
        head = elastic_net(
            (train.features - mean) / std, train.labels, num_classes=model.num_outputs, lam=lam, alpha=0.0
        )
        probes.append(
            tuple(
                float((((s.features - mean) / std @ head.weight.T + head.bias).argmax(1) == s.labels).float().mean())
                for s in (val, test)
            )
        )
    ours, probe = max(heads, key=lambda pair: pair[0])[1], max(probes, key=lambda pair: pair[0])[1]
    return {"pcbm": ours, "linear_probe": probe, "difference": ours - probe}


if __name__ == "__main__":
    main()
