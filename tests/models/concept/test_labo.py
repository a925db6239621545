"""LaBo: parity of the association matrix, what is selected, and what must hold of its head."""

import pytest
import torch

from tests.golden.cases import Case, Result, adapter
from tests.models.concept.toy import CLASSES, CONCEPTS, Words, accuracy, module, planted
from zoo.models.backbone import Identity
from zoo.models.concept.labo import LaBo
from zoo.models.contract import Intervention

SENTENCES = {"cat": ["fur", "long ears", "tail"], "dog": ["fur", "paw", "bark"], "owl": ["wings", "night", "beak"]}


def build(**arguments) -> LaBo:
    torch.manual_seed(0)
    settings = {"num_outputs": 3, "class_names": CLASSES, "candidates": SENTENCES, "per_class": 2} | arguments
    return LaBo(backbone=settings.pop("backbone", Words(in_channels=12)), **settings)


def fitted(**arguments) -> LaBo:
    model = build(**arguments)
    model.prepare(planted())
    return model


@adapter("labo", "LaBo.classifier")
def classifier(case: Case) -> Result:
    given, owners = case.arguments, case.input["concept2cls"].long().tolist()
    state = LaBo.convert_state(case.param)
    count, width = state["embeddings"].shape
    model = build(
        backbone=Words(in_channels=width),
        num_outputs=given["num_cls"],
        activation=given["asso_act"] or "none",
        init=given["init_val"],
        logit_scale=given["logit_scale"],
        l1_weight=given["lambda_l1"] * given["use_l1_loss"],
        div_weight=given["lambda_div"] * given["use_div_loss"],
        concepts=[f"c{k}" for k in range(count)],
        concept_classes=owners,
    )
    if not given["use_rand_init"]:
        assert torch.equal(model.association, state["init_weight"])
    model.load_state_dict(state, strict=False)
    features = case.input["img_feat"]
    output = model.forward_features(features)
    loss = model.loss(output, {"label": case.input["labels"]})["loss"]
    return {
        "output/weight_mat": model.weights,
        "output/sim": features @ (model.weights @ model.embeddings).T,
        "output/sim_fast": output.prediction / given["logit_scale"],
        "output/loss": loss,
        "output/div": model.divergence(output),
        "output/row_l1_max": model.largest_row(),
        **case.gradients(loss, {"grad/asso_mat": model.association}),
    }


def test_selection_keeps_sentences_with_their_class():
    model = fitted()
    assert len(model.concept_names) == 6
    assert set(model.concept_names[4:]) <= {"wings", "night", "beak"}
    # a sentence of two classes belongs to the first
    assert "fur" not in [n for n, c in zip(model.concept_names, model.concept_classes) if c == 1]
    expected = torch.zeros(3, 6)
    expected[torch.tensor(model.concept_classes), torch.arange(6)] = 1
    assert torch.equal(model.association.detach(), expected)


def test_texts_of_no_class_are_candidates_of_the_class_they_fit_best():
    words = ["fur", "wings", "long ears", "beak", "night", "bark"]
    model = fitted(candidates=None, concept_names=CONCEPTS, concepts=words, per_class=3)
    assert set(model.concept_names) <= set(words)
    owner = dict(zip(model.concept_names, model.concept_classes))
    assert owner["long ears"] == CLASSES.index("cat")
    assert owner["wings"] == CLASSES.index("owl")
    with pytest.raises(ValueError, match="two pools"):
        build(concepts=words)


def test_rebuilds_from_its_arguments():
    model = fitted()
    again = build(**model.fitted_arguments())
    again.load_state_dict(model.state_dict())
    x = torch.randn(4, 12)
    assert torch.equal(again(x).prediction, model(x).prediction)
    assert again.concept_names == model.concept_names
    assert build().fitted_arguments() == {}


def test_prepared_again_keeps_its_concepts():
    model = fitted()
    names = model.concept_names
    model.prepare(planted(seed=1))
    assert model.concept_names == names


@pytest.mark.parametrize("selection", ["paper", "upstream", "mi", "group_mi", "clip_score", "random"])
@pytest.mark.parametrize("normalise", [True, False])
def test_learns_from_the_data_s_own_concepts(selection, normalise):
    data = planted()
    model = build(
        candidates=None, concept_names=CONCEPTS, per_class=5, selection=selection, normalise=normalise, logit_scale=10.0
    )
    model.prepare(data)
    assert set(model.concept_names) == set(CONCEPTS)
    x, y = (torch.stack([item[key] for item in data.train_set]) for key in ("image", "label"))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        model.loss(model(x), {"label": y})["loss"].backward()
        optimiser.step()
    assert accuracy(model, data) > 0.8


def test_rows_sum_to_one_and_uniform_rows_average():
    model = fitted()
    torch.testing.assert_close(model.weights.sum(1), torch.ones(3))
    torch.nn.init.zeros_(model.association)
    x = torch.randn(4, 12)
    mean = 100 * (x @ model.embeddings.mean(0))
    torch.testing.assert_close(model(x).prediction, mean[:, None].expand(4, 3), atol=1e-3, rtol=1e-4)


def test_permuting_the_classes_permutes_the_rows():
    own = {"cat": ["long ears", "whiskers"], "dog": ["paw", "bark", "leash"], "owl": ["wings", "night", "beak"]}
    order = [2, 0, 1]
    data = planted()
    plain = build(candidates=own)
    plain.prepare(data)
    for item in data.train_set:
        item["label"] = torch.tensor(order.index(int(item["label"])))
    permuted = build(candidates=own, class_names=[CLASSES[label] for label in order])
    permuted.prepare(data)
    columns = [plain.concept_names.index(name) for name in permuted.concept_names]
    assert torch.equal(permuted.association, plain.association[order][:, columns])


def test_interventions_and_contributions():
    model = fitted()
    x = torch.stack([item["image"] for item in planted().train_set])
    plain = model(x)
    nothing = model(x, Intervention(torch.zeros(6, dtype=torch.bool), torch.ones(6)))
    assert torch.equal(plain.prediction, nothing.prediction)
    torch.testing.assert_close(model.contributions(plain).sum(1), plain.prediction, atol=1e-3, rtol=1e-4)
    owls = torch.tensor(model.concept_classes) == 2
    corrected = model(x, Intervention(owls, torch.ones(6)))
    assert torch.equal(corrected.concepts, plain.concepts)
    assert (corrected.prediction[:, 2] - plain.prediction[:, 2]).mean() > 0
    torch.testing.assert_close(model.range.unit(corrected.latent)[:, owls], torch.ones(len(x), 2))


def test_optional_terms_join_the_loss():
    model = fitted(l1_weight=0.01, div_weight=0.005)
    terms = model.loss(model(torch.randn(6, 12)), {"label": torch.arange(6) % 3})
    torch.testing.assert_close(terms["loss"], terms["cross_entropy"] + terms["l1"] + terms["div"])
    torch.testing.assert_close(terms["l1"], torch.tensor(0.02))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="Identity has none"):
        build(backbone=Identity(in_channels=12))
    with pytest.raises(ValueError, match="no candidate sentences"):
        build(candidates=None)
    with pytest.raises(ValueError, match="unknown classes bird"):
        fitted(candidates=SENTENCES | {"bird": ["x"]})
    with pytest.raises(ValueError, match="no candidate sentence for owl"):
        fitted(candidates=SENTENCES | {"owl": []})
    data = planted()
    inputs, labels = (torch.stack([item[key] for item in data.train_set]) for key in ("image", "label"))
    with pytest.raises(ValueError, match=r"no training image of class \[2\]"):
        build().prepare(module(inputs, labels.clamp_max(1), None))
