"""The catalogue reads what the YAML says, finds by name and wildcard, and names the nearest model."""

import pytest

from zoo import catalogue
from zoo.errors import UserError

pytestmark = pytest.mark.usefixtures("small_catalogue")


def test_entry():
    entry = catalogue.entry("cbm")
    assert entry.summary == "Concepts first, then the label."
    assert entry.target == "zoo.models.concept.cbm.CBM"
    assert entry.arguments == {"concept_loss_weight": 1.0, "training": "joint"}
    assert entry.title == "Concept bottleneck model"
    assert entry.year == 2020
    assert entry.figures[0]["value"] == 0.199
    assert entry.command == "python -m zoo train model=cbm data=digits"
    assert catalogue.entry("litv2").command == "python -m zoo train model=litv2"


def test_models_are_ordered_by_family_then_name(small_catalogue):
    (small_catalogue / "model" / "aaa.yaml").write_text("_target_: x\ncard: {family: vision}\n")
    assert [entry.name for entry in catalogue.models()] == ["cbm", "aaa", "litv2"]


def test_groups():
    assert catalogue.groups() == {"data": ["digits", "shapes"], "model": ["cbm", "litv2"]}


@pytest.mark.parametrize(
    ("glob", "family", "names"),
    [("*", None, ["cbm", "litv2"]), ("lit*", None, ["litv2"]), ("*", "concept", ["cbm"]), ("lit*", "concept", [])],
)
def test_list_models(glob, family, names):
    assert catalogue.list_models(glob, family=family) == names


def test_unknown_model_and_family():
    with pytest.raises(UserError, match="unknown model 'cbn': did you mean cbm"):
        catalogue.entry("cbn")
    with pytest.raises(UserError, match="unknown family 'vison': did you mean vision"):
        catalogue.list_models(family="vison")


@pytest.mark.parametrize("name", ["../data/digits", "", ".", "cbm.yaml", "*"])
def test_a_name_is_no_path(name):
    with pytest.raises(UserError, match="unknown model"):
        catalogue.entry(name)


@pytest.mark.parametrize("text", ["a: [1", "- 1", "", "card: 3"])
def test_a_broken_file_is_named(small_catalogue, text):
    (small_catalogue / "model" / "broken.yaml").write_text(text)
    with pytest.raises(UserError, match=r"broken\.yaml: ") as caught:
        catalogue.models()
    assert len(caught.value.lines) == 1
    assert "\n" not in str(caught.value)


def test_checkpoints():
    assert catalogue.entry("litv2").checkpoint().arguments == {"depth": 2}
    assert catalogue.entry("litv2").checkpoint("small").tag == "small"
    with pytest.raises(UserError, match="litv2 has no weights tagged 'smal': did you mean small"):
        catalogue.entry("litv2").checkpoint("smal")
    with pytest.raises(UserError, match="cbm has no released weights: train them with python -m zoo train model=cbm"):
        catalogue.entry("cbm").checkpoint()
