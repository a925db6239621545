"""Concept matrix search: parity of its four forms, and what a training-free rule must do."""

import pytest
import torch

from tests.golden.cases import Case, Result, adapter
from tests.models.concept.toy import CLASSES, CONCEPTS, Words, planted
from zoo.models.concept.concept_matrix_search import ConceptMatrixSearch, cosine_matrix, row_normalise
from zoo.models.contract import Intervention

VARIANTS = ("similarity", "cubed", "max", "column")


def build(variant: str = "similarity", **arguments) -> ConceptMatrixSearch:
    settings = {"backbone": Words(in_channels=12), "num_outputs": 3, "class_names": CLASSES, "concept_names": CONCEPTS}
    return ConceptMatrixSearch(**settings | arguments, variant=variant)


@adapter("sparsecbm", "concept_matrix_search", repeats=("n_images",))
def search(case: Case) -> Result:
    given, images, labels = case.arguments, case.input["image_feat"], case.input["labels"]
    models = {}
    for variant in VARIANTS:
        model = build(
            variant,
            backbone=Words(in_channels=images.shape[1]),
            num_outputs=given["n_classes"],
            class_names=[f"y{j}" for j in range(given["n_classes"])],
            concept_names=[f"c{k}" for k in range(given["K"])],
            signed=True,
        )
        model.concept_vectors.copy_(case.input["concept_feat"])
        model.class_vectors.copy_(case.input["class_feat"])
        cosines = cosine_matrix(images, model.concept_vectors)
        model.column_sums.copy_(cosines.sum(0))
        models[variant] = model
    scores = {variant: model.forward_features(images).prediction for variant, model in models.items()}
    classes = cosine_matrix(case.input["class_feat"], case.input["concept_feat"])
    right = {variant: float((value.argmax(1) == labels).float().mean()) for variant, value in scores.items()}
    return {
        "output/V": row_normalise(cosines, signed=True),
        "output/T": row_normalise(classes, signed=True),
        "output/similarity": scores["similarity"],
        "output/cubed_similarity": scores["cubed"],
        "output/pred_similarity": scores["similarity"].argmax(1),
        "output/pred_cubed": scores["cubed"].argmax(1),
        "output/pred_max": scores["max"].argmax(1),
        "output/V_colnorm": cosines / cosines.sum(0),
        "output/T_colnorm": classes / classes.sum(0),
        "output/similarity_colnorm": scores["column"],
        "output/pred_similarity_colnorm": scores["column"].argmax(1),
        "expected/accuracy": right | {"colnorm": right["column"]},
    }


def fitted(variant: str = "similarity", **arguments) -> ConceptMatrixSearch:
    model = build(variant, **arguments)
    model.prepare(planted())
    return model


@pytest.mark.parametrize("variant", ["similarity", "cubed"])
def test_images_at_the_class_names_are_all_right(variant):
    model = fitted(variant)
    assert model.forward_features(model.class_vectors).prediction.argmax(1).tolist() == [0, 1, 2]
    assert model.stages() == []


@pytest.mark.parametrize("variant", ["similarity", "cubed"])
def test_doubling_the_concepts_changes_nothing(variant):
    x = torch.randn(20, 12)
    single, double = fitted(variant), fitted(variant, concept_names=CONCEPTS + CONCEPTS)
    torch.testing.assert_close(double(x).prediction, single(x).prediction)


def test_negative_row_sums_do_not_turn_the_sign():
    model = fitted()
    x = torch.randn(50, 12)
    cosines = cosine_matrix(x, model.concept_vectors)
    assert (cosines.sum(1) < 0).any()
    classes = cosine_matrix(model.class_vectors, model.concept_vectors)
    torch.testing.assert_close(model(x).prediction, cosine_matrix(cosines, classes))
    model.signed = True
    signs = cosines.sum(1, keepdim=True).sign() * classes.sum(1).sign()
    torch.testing.assert_close(model(x).prediction, signs * cosine_matrix(cosines, classes))


@pytest.mark.parametrize("variant", VARIANTS)
def test_interventions_contributions_and_single_images(variant):
    model = fitted(variant)
    x = torch.randn(9, 12)
    plain = model(x)
    nothing = model(x, Intervention(torch.zeros(5, dtype=torch.bool), torch.ones(5)))
    assert torch.equal(plain.prediction, nothing.prediction)
    torch.testing.assert_close(model.contributions(plain).sum(1), plain.prediction)
    torch.testing.assert_close(model(x[:1]).prediction, plain.prediction[:1])
    corrected = model(x, Intervention(torch.ones(5, dtype=torch.bool), torch.tensor([1.0, 0, 1, 0, 0])))
    assert torch.equal(corrected.concepts, plain.concepts)
    assert torch.equal(corrected.latent, corrected.latent[:1].expand(9, 5))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        build(class_names=("a", "b"))
    with pytest.raises(ValueError, match="choose one of similarity, cubed, max, column"):
        build("mean")
    with pytest.raises(ValueError, match="no concepts"):
        build(concept_names=())
