"""PCBM: parity with the released code, its oracles, editing, and the bank's file; its residual is in test_pcbm_h.py."""

import warnings

import pytest
import torch
from torch.nn.functional import normalize

from tests.golden.cases import Case, Result, adapter
from tests.models.concept.toy import CONCEPTS, Words, accuracy, module, planted
from zoo.data.digits import concept_matrix
from zoo.models.backbone import Identity
from zoo.models.concept.bank import ConceptBank, bank_from_clusters, bank_from_vectors, project, random_bank
from zoo.models.concept.pcbm import PCBM, sgd_head
from zoo.models.concept.score_range import ScoreRange
from zoo.models.contract import Intervention


def build(dim: int = 12, classes: int = 3, backbone=None, **arguments) -> PCBM:
    torch.manual_seed(0)
    arguments = {"concept_names": CONCEPTS} | arguments
    return PCBM(backbone=backbone or Identity(in_channels=dim), num_outputs=classes, **arguments)


def numbered(count: int) -> list[str]:
    return [f"c{k}" for k in range(count)]


@adapter("pcbm", "PosthocLinearCBM", repeats=("backbone_name",))
def linear(case: Case) -> Result:
    given = case.arguments
    names = numbered(given["K"])
    model = build(given["D"], given["n_classes"], concept_names=names)
    if "text_features_raw" in case.input:
        model.use_bank(bank_from_vectors(case.input["text_features_raw"], names))
    model.load_state_dict(PCBM.convert_state(case.param), strict=False)
    output = model.forward_features(case.input["emb"])
    return {"output/projection": output.extras["distances"], "output/logits": output.prediction}


@adapter("pcbm", "editing")
def editing(case: Case) -> Result:
    given, pairs = case.arguments, case.input["pairs_class_concept"].tolist()
    result = {}
    for extent, chosen in (("first", pairs[:1]), ("all", pairs)):
        for name, normalise in (("prune", False), ("prune_normalize", True)):
            model = build(4, given["n_classes"], concept_names=numbered(given["K"]))
            model.classifier.weight.copy_(case.param["weight"])
            for label in dict.fromkeys(label for label, _ in pairs):
                model.edit(label, [concept for other, concept in chosen if other == label], normalise=normalise)
            result[f"output/weight_{name}_{extent}"] = model.classifier.weight
    logits = case.input["projection"] @ result["output/weight_prune_normalize_all"].T
    return result | {"output/logits_prune_normalize_all_nobias": logits}


@adapter("pcbm", "sgd_head")
def sgd(case: Case) -> Result:
    given = case.arguments
    x, labels = case.input["projection"], case.input["labels"]
    assert given["loss"] == "log_loss"
    # an elastic net's share of l1; scikit-learn's own where the case states none
    l1_ratio = {"l1": 1.0, "l2": 0.0}.get(given["penalty"], given.get("l1_ratio", 0.15))
    weight, bias = sgd_head(
        x.numpy(),
        labels.numpy(),
        num_classes=given["n_classes"],
        lam=given["alpha"],
        l1_ratio=l1_ratio,
        max_iter=given["max_iter"],
        seed=given["random_state"],
    )
    right = ((x @ weight.T + bias).argmax(1) == labels).double().mean()
    if given["n_classes"] == 2:
        # the released head has one row for two classes, ours a row of zeros before it
        weight, bias = weight[1:], bias[1:]
    return {
        "output/coef": weight,
        "output/intercept": bias,
        "output/train_acc": right,
        "expected/nnz": int((weight != 0).sum()),
    }


def plane(seed: int = 0, count: int = 4, dim: int = 6):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    intercepts = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    features = torch.randn(5, dim, generator=generator, dtype=torch.float64)
    return features, vectors, intercepts, vectors.norm(dim=1, keepdim=True)


def test_projection_is_a_signed_distance():
    features, vectors, intercepts, norms = plane()
    distance = project(features, vectors, intercepts, norms)
    scaled = project(features, 3 * vectors, 3 * intercepts, 3 * norms)
    flipped = project(features, -2 * vectors, -2 * intercepts, 2 * norms)
    torch.testing.assert_close(scaled, distance)
    torch.testing.assert_close(flipped, -distance)
    moved = project(features + 1.7 * vectors[2] / norms[2], vectors, intercepts, norms)
    torch.testing.assert_close(moved[:, 2], distance[:, 2] + 1.7)
    on_plane = features - distance[:, :1] * vectors[0] / norms[0]
    assert project(on_plane, vectors, intercepts, norms)[:, 0].abs().max() < 1e-12


@pytest.mark.parametrize("solver", ["glm", "sgd"])
def test_learns_planted_concepts(solver):
    data = planted()
    model = build(num_samples=20, solver=solver, lam=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.prepare(data)
    assert model.stages() == []
    assert accuracy(model, data) > 0.9
    assert model.accuracies[:, 1].min() > 0.8
    output = model(torch.stack([item["image"] for item in data.train_set]))
    truth = torch.stack([item["concepts"] for item in data.train_set])
    assert ((output.concepts > 0.5) == (truth > 0.5)).float().mean() > 0.9


def test_orthonormal_bank_reaches_the_linear_probe():
    data = planted()
    model = build(concept_names=numbered(12), source="random", lam=1e-4)
    x = torch.stack([item["image"] for item in data.train_set])
    labels = torch.stack([item["label"] for item in data.train_set])
    model.use_bank(bank_from_vectors(torch.linalg.qr(torch.randn(12, 12))[0], numbered(12)))
    model.fit_head(model.forward_features(x).latent, labels)
    probe = build(concept_names=numbered(12), source="random", lam=1e-4)
    probe.fit_head(x, labels)
    assert abs(accuracy(model, data) - float((probe.classifier(x).argmax(1) == labels).float().mean())) < 0.01


def test_text_and_random_banks():
    data = planted()
    worded = build(source="text", backbone=Words(in_channels=12))
    worded.prepare(data)
    control = build(source="random", concept_names=CONCEPTS)
    control.prepare(data)
    assert accuracy(worded, data) > 0.9
    assert torch.equal(control.vectors, random_bank(CONCEPTS, 12, seed=1).vectors)
    torch.testing.assert_close(worded.vectors.norm(dim=1), torch.ones(5))


def test_cached_features_and_images_agree():
    data = planted()
    inputs, labels, concepts = (torch.stack([i[key] for i in data.train_set]) for key in ("image", "label", "concepts"))
    seen, cached = build(num_samples=20, lam=1e-3), build(num_samples=20, lam=1e-3)
    seen.prepare(data)
    cached.prepare(module(inputs, labels, concepts, key="features"))
    assert torch.equal(seen.classifier.weight, cached.classifier.weight)
    assert torch.equal(seen(inputs).prediction, cached.forward_features(inputs).prediction)


def test_large_penalty_empties_the_head():
    model = build(num_samples=20, lam=10.0)
    model.prepare(planted())
    assert not model.classifier.weight.any()


def test_interventions():
    data = planted()
    model = build(num_samples=20, lam=1e-3)
    model.prepare(data)
    x = torch.stack([item["image"] for item in data.train_set])
    plain = model(x)
    nothing = model(x, Intervention(torch.zeros(5, dtype=torch.bool), torch.ones(5)))
    assert torch.equal(plain.prediction, nothing.prediction)
    wings = Intervention(torch.tensor([0, 1, 0, 1, 1]).bool(), torch.ones(5))
    corrected = model(x, wings)
    assert torch.equal(corrected.concepts, plain.concepts)
    assert (corrected.prediction.softmax(1)[:, 2] - plain.prediction.softmax(1)[:, 2]).mean() > 0.2
    back = model.range.unit(corrected.latent * model.deviation + model.mean)
    torch.testing.assert_close(back[:, [1, 3, 4]], torch.ones(len(x), 3))


def test_true_concepts_do_not_harm():
    """Real digits: a person who corrects every concept, each of which is a fact of the class, is not worse off."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    inputs, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    concepts = torch.from_numpy(concept_matrix())[labels]
    model = build(64, 10, concept_names=numbered(concepts.shape[1]))
    model.prepare(module(inputs[:1200], labels[:1200], concepts[:1200], classes="0123456789"))
    held_out, truth, answers = inputs[1200:], concepts[1200:], labels[1200:]
    plain = model(held_out)
    corrected = model(held_out, Intervention(torch.ones(concepts.shape[1], dtype=torch.bool), truth))
    accuracies = [float((found.prediction.argmax(1) == answers).float().mean()) for found in (plain, corrected)]
    assert accuracies[0] > 0.75
    assert accuracies[1] == 1


def test_absent_and_present_are_the_medians_of_images_without_and_with():
    data = planted()
    model = build(num_samples=20)
    model.prepare(data)
    distances = model(torch.stack([item["image"] for item in data.train_set])).extras["distances"]
    truth = torch.stack([item["concepts"] for item in data.train_set]) > 0.5
    for k in range(5):
        torch.testing.assert_close(model.range.absent[k], distances[~truth[:, k], k].median())
        torch.testing.assert_close(model.range.present[k], distances[truth[:, k], k].median())


def test_without_labels_a_plane_tells_absent_from_present():
    scores = torch.tensor([[-3.0, 1], [-2, 2], [-1, 3], [4, 4], [6, 5]])
    found = ScoreRange(2)
    found.fit_sides(scores)
    assert found.absent.tolist() == [-2, 1]
    assert found.present.tolist() == [4, 5]


def test_contributions_sum_to_the_logits():
    model = build(num_samples=20, lam=1e-3)
    model.prepare(planted())
    output = model(torch.randn(4, 12))
    torch.testing.assert_close(model.contributions(output).sum(1) + model.classifier.bias, output.prediction)


def test_editing_keeps_the_row_sum():
    model = build()
    before = model.classifier.weight.clone()
    model.edit(1, [0, 3])
    assert model.classifier.weight[1, [0, 3]].tolist() == [0, 0]
    torch.testing.assert_close(model.classifier.weight.abs().sum(1), before.abs().sum(1))
    assert torch.equal(model.classifier.weight[[0, 2]], before[[0, 2]])
    once = model.classifier.weight.clone()
    model.edit(1, [0, 3])
    torch.testing.assert_close(model.classifier.weight, once)
    model.edit(1, range(5))
    assert not model.classifier.weight[1].any()


def test_class_without_images_is_never_predicted():
    weight, bias = sgd_head(torch.randn(40, 3).numpy(), (torch.arange(40) % 2 * 2).numpy(), num_classes=4, lam=1e-3)
    assert set((torch.randn(50, 3).double() @ weight.T + bias).argmax(1).tolist()) <= {0, 2}


def test_bank_file_round_trip(tmp_path):
    model = build(num_samples=10)
    data = planted()
    features, concepts = (torch.stack([i[key] for i in data.train_set]) for key in ("image", "concepts"))
    bank = model._bank(features, concepts)
    bank.save(tmp_path / "bank")
    again = ConceptBank.load(tmp_path / "bank")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bank.json", "bank.safetensors"]
    assert again.names == CONCEPTS
    assert again.provenance == bank.provenance
    assert torch.equal(again.project(features), bank.project(features))
    assert torch.equal(again.margins, bank.margins)
    with pytest.raises(ValueError, match=r"no concept bank at .*other: other.safetensors and other.json missing"):
        ConceptBank.load(tmp_path / "other")


def test_rare_concepts_warn_and_constant_ones_stay_silent():
    data = planted()
    x, labels, concepts = (torch.stack([i[key] for i in data.train_set]) for key in ("image", "label", "concepts"))
    concepts[:, 0], concepts[:, 1] = 1, 0
    concepts[:3, 1] = 1
    model = build(num_samples=20)
    with pytest.warns(UserWarning, match="drawn repeatedly|stay silent") as caught:
        model.prepare(module(x, labels, concepts))
    said = " ".join(str(warning.message) for warning in caught)
    assert "drawn repeatedly: wings" in said
    assert "stay silent: fur" in said
    output = model(x)
    assert not output.concepts[:, 0].any()
    assert torch.isfinite(output.prediction).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="no concepts"):
        build(concept_names=())
    with pytest.raises(ValueError, match="Identity has none: take a CLIP backbone"):
        build(source="text")
    with pytest.raises(ValueError, match="words for source=text"):
        build(concepts=["red"])
    with pytest.raises(ValueError, match="discovers its own"):
        build(source="clusters", concepts=["red"])
    with pytest.raises(ValueError, match="clusters=0"):
        build(source="clusters", clusters=0)
    data = planted()
    inputs, labels = (torch.stack([item[key] for item in data.train_set]) for key in ("image", "label"))
    with pytest.raises(ValueError, match="these data have none"):
        build().prepare(module(inputs, labels, None))
    with pytest.raises(ValueError, match="task=classification"):
        build().prepare(module(inputs, labels.float()[:, None], None))


def test_clusters_are_found_without_labels_or_words():
    """Well apart, the clusters are the planted ones; the head needs no concept labels."""
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.eye(4, 6)
    belongs = torch.arange(200) % 4
    features = centres[belongs] + 0.1 * torch.randn(200, 6, generator=generator)
    bank = bank_from_clusters(features, numbered(4), seed=0)
    wanted = normalize(centres - centres.mean(0), dim=1)
    torch.testing.assert_close((bank.vectors @ wanted.T).amax(1), torch.ones(4), atol=1e-3, rtol=0)
    assert set((bank.vectors @ wanted.T).argmax(1).tolist()) == {0, 1, 2, 3}

    model = build(dim=6, concept_names=(), source="clusters", clusters=4)
    data = module(features, belongs % 3, None)
    model.prepare(data)
    again = build(dim=6, source="clusters", clusters=4)
    again.prepare(data)
    assert model.concept_names == ("cluster 1", "cluster 2", "cluster 3", "cluster 4")
    assert accuracy(model, data) > 0.99
    assert torch.equal(model.vectors, again.vectors)
    with pytest.raises(ValueError, match="201 clusters of 200 points"):
        bank_from_clusters(features, numbered(201), seed=0)


def test_random_directions_are_reproducible():
    first, second = random_bank(CONCEPTS, 7, seed=3), random_bank(CONCEPTS, 7, seed=3)
    assert torch.equal(first.vectors, second.vectors)
    torch.testing.assert_close(normalize(first.vectors, dim=1), first.vectors)
