"""Label-free CBM: parity of its similarity and forward pass, its oracles, and a fit on planted concepts."""

import pytest
import torch
from torch.nn.functional import normalize

from tests.golden.cases import Case, Result, adapter
from tests.models.concept.toy import CONCEPTS, Words, accuracy, module, planted
from zoo.models.backbone import Identity
from zoo.models.concept.concept_similarity import cubed_cosine, cubed_cosine_pairs, soft_wpmi
from zoo.models.concept.label_free_cbm import LabelFreeCBM
from zoo.models.concept.nec import effective_concepts
from zoo.models.concept.word_filter import like_another
from zoo.models.contract import Intervention


def build(**arguments) -> LabelFreeCBM:
    torch.manual_seed(0)
    settings = {"backbone": Words(in_channels=12), "num_outputs": 3, "concept_names": CONCEPTS, "lr": 1e-2}
    return LabelFreeCBM(**settings | arguments)


def fitted(data=None, **arguments) -> LabelFreeCBM:
    model = build(**arguments)
    model.prepare(data or planted())
    return model


@adapter("lfcbm", "LFCBM.similarity")
def similarity(case: Case) -> Result:
    given, wanted = case.arguments, case.input["clip_feats"]
    weight = case.param["proj.weight"].requires_grad_()
    found = cubed_cosine(wanted, case.input["backbone_feats"] @ weight.T)
    loss = -found.mean()
    return {
        "output/similarity": found,
        "output/loss": loss,
        "output/all_pairs": cubed_cosine_pairs(case.input["target_feats"], wanted, floor=given["norm_floor"]),
        "output/soft_wpmi": soft_wpmi(
            wanted,
            case.input["target_feats"],
            top_k=given["soft_wpmi_top_k"],
            temperature=given["soft_wpmi_a"],
            lam=given["soft_wpmi_lam"],
            smallest=given["soft_wpmi_min_prob"],
            first=given["soft_wpmi_p_start"],
            last=given["soft_wpmi_p_end"],
        ),
        **case.gradients(loss, {"grad/proj.weight": weight}),
    }


@adapter("lfcbm", "LFCBM")
def forward(case: Case) -> Result:
    given = case.arguments
    model = build(
        backbone=Words(in_channels=given["feature_dim"]),
        num_outputs=given["n_classes"],
        concept_names=[f"c{k}" for k in range(given["n_concepts"])],
    )
    model.load_state_dict(LabelFreeCBM.convert_state(case.param), strict=False)
    output = model.forward_features(case.input["feats"])
    return {"output/concepts": output.latent, "output/logits": output.prediction}


def test_similarity_is_a_cosine_that_no_scale_or_shift_changes():
    wanted = torch.randn(50, 4).double()
    found = torch.randn(50, 4).double()
    assert cubed_cosine(wanted, found).abs().max() < 1
    torch.testing.assert_close(cubed_cosine(wanted, 3 * wanted + 5), torch.ones(4).double())
    torch.testing.assert_close(cubed_cosine(wanted, -2 * wanted + 1), -torch.ones(4).double())
    scale = torch.ones(4).double().requires_grad_()
    (gradient,) = torch.autograd.grad(cubed_cosine(wanted, scale * found).sum(), scale)
    assert gradient.abs().max() < 1e-12
    torch.testing.assert_close(cubed_cosine_pairs(found, wanted).diagonal(), cubed_cosine(wanted, found))
    assert cubed_cosine(wanted, torch.ones(50, 4).double()).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("target", ["text", "labels"])
def test_learns_planted_concepts(target):
    data = planted()
    backbone = Words(in_channels=12) if target == "text" else Identity(in_channels=12)
    model = fitted(data, target=target, backbone=backbone)
    assert model.stages() == []
    assert model.concept_names == CONCEPTS
    assert accuracy(model, data) > 0.9
    truth = torch.stack([item["concepts"] for item in data.train_set])
    output = model(torch.stack([item["image"] for item in data.train_set]))
    assert ((output.concepts > 0.5) == (truth > 0.5)).float().mean() > 0.85
    torch.testing.assert_close(output.latent.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(output.latent.std(0), torch.ones(5))


def test_concepts_that_no_image_shows_are_dropped():
    data, names = planted(), (*CONCEPTS, "zebra crossing")
    x, words = torch.stack([item["image"] for item in data.train_set]), Words(in_channels=12).encode_text(names)
    shown = (normalize(x, dim=1) @ normalize(words, dim=1).T).topk(5, dim=0).values.mean(0)
    rarest = names[int(shown.argmin())]
    model = fitted(data, concepts=names, clip_cutoff=float(shown.min()) + 1e-4, interpretability_cutoff=-1.0)
    assert set(names) - set(model.concept_names) == {rarest}
    again = build(**model.fitted_arguments())
    again.load_state_dict(model.state_dict())
    x = torch.randn(4, 12)
    assert torch.equal(again(x).prediction, model(x).prediction)


def test_of_words_that_say_the_same_the_one_most_like_the_others_stays():
    """Unit vectors at angles (degrees) in a plane, and the words that go at 20 degrees."""
    for angles, gone in [((0, 90), []), ((0, 10, 15), [0, 2]), ((0, 10, 90, 95), [0, 3]), ((7, 7), [1])]:
        turned = torch.tensor(angles).double().deg2rad()
        vectors = torch.stack([turned.cos(), turned.sin()], 1)
        found = like_another(vectors, cutoff=float(torch.tensor(20.0).deg2rad().cos()))
        assert [k for k, out in enumerate(found) if out] == gone
        left = vectors[[k for k, out in enumerate(found) if not out]]
        assert ((left @ left.T).fill_diagonal_(0) <= 0.94).all()


def test_a_list_of_words_is_sifted_and_the_data_s_names_are_not(caplog):
    data, long = planted(), "a fur that is far too long to be a concept"
    words = [*CONCEPTS, "fur", "dog", long]
    open_wide = {"clip_cutoff": -1.0, "interpretability_cutoff": -1.0}
    model = fitted(data, concepts=words, class_names=("cat", "dog", "owl"), **open_wide)
    assert model.concept_names == CONCEPTS
    assert model.remarks()["removed_concepts"] == {
        "longest=30": [long],
        "like a class, class_cutoff=0.85": ["dog"],
        "like another concept, concept_cutoff=0.9": ["fur"],
    }
    assert [record.getMessage() for record in caplog.records] == [
        f"1 concept removed (longest=30): {long}",
        "1 concept removed (like a class, class_cutoff=0.85): dog",
        "1 concept removed (like another concept, concept_cutoff=0.9): fur",
    ]
    everything = {"longest": None, "class_cutoff": None, "concept_cutoff": None}
    assert len(fitted(data, concepts=words, class_names=("dog",), **everything, **open_wide).concept_names) == 8
    assert fitted(data, class_names=CONCEPTS, longest=1, **open_wide).concept_names == CONCEPTS
    with pytest.raises(ValueError, match=r"no concept is left \(longest=2 removes 8\): change it, null is no limit"):
        fitted(data, concepts=words, longest=2)


def test_projection_that_cannot_follow_drops_its_concept():
    data = planted()
    x, y, concepts = (torch.stack([item[key] for item in data.train_set]) for key in ("image", "label", "concepts"))
    model = build(interpretability_cutoff=0.999)
    with pytest.raises(ValueError, match=r"above interpretability_cutoff=0.999: lower it \(the best has 0"):
        model.prepare(module(x, y, concepts))
    with pytest.raises(ValueError, match="no concept is above clip_cutoff=2"):
        build(clip_cutoff=2).prepare(data)


@pytest.mark.parametrize("wanted", [1, 2, 30])
def test_head_has_the_wanted_number_of_effective_concepts(wanted):
    model = fitted(effective_concepts=wanted)
    count = effective_concepts(model.classifier.weight)
    assert count == pytest.approx(wanted, abs=0.34) if wanted < 5 else count > 2


def test_fixed_penalty_and_random_control():
    data = planted()
    assert not fitted(data, effective_concepts=None, lam=10.0).classifier.weight.any()
    control, again = fitted(data, target="random"), fitted(data, target="random")
    assert control.concept_names == CONCEPTS
    assert torch.equal(control.projection, again.projection)
    assert accuracy(control, data) < accuracy(fitted(data), data) + 0.02


def test_interventions_and_contributions():
    data = planted()
    model = fitted(data)
    x = torch.stack([item["image"] for item in data.train_set])
    plain = model(x)
    nothing = model(x, Intervention(torch.zeros(5, dtype=torch.bool), torch.ones(5)))
    assert torch.equal(plain.prediction, nothing.prediction)
    torch.testing.assert_close(model.contributions(plain).sum(1) + model.classifier.bias, plain.prediction)
    owl = Intervention(torch.ones(5, dtype=torch.bool), torch.tensor([0.0, 1, 0, 1, 1]))
    corrected = model(x, owl)
    assert torch.equal(corrected.concepts, plain.concepts)
    assert (corrected.prediction.argmax(1) == 2).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="Identity has none"):
        build(backbone=Identity(in_channels=12))
    with pytest.raises(ValueError, match="no concepts"):
        build(concept_names=())
    data = planted()
    x, y = (torch.stack([item[key] for item in data.train_set]) for key in ("image", "label"))
    with pytest.raises(ValueError, match="these data have none"):
        build(target="labels").prepare(module(x, y, None))
