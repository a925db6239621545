"""What a report says of concepts: sentences that follow from the figures, and nothing where there are none."""

import re
from types import SimpleNamespace

import pytest
import torch

from zoo.models.backbone import Identity
from zoo.models.concept.cbm import CBM
from zoo.models.concept.cem import CEM
from zoo.models.concept.labo import LaBo
from zoo.report_concepts import concept_sections, head_weights
from zoo.runs import Run
from zoo.tasks.evaluation import Predictions

NAMES = ("wing", "bar", "stem")
INFO = SimpleNamespace(class_names=["bird", "cup"], concept_names=list(NAMES), task="classification")
METRICS = {
    "samples": 2000,
    "acc": 0.8,
    "concept_acc": 0.9,
    "concept_acc_all": 0.7,
    "per_concept": {"wing": 0.99, "bar": 0.75, "stem": 0.96},
    "acc_all_wrong": 0.1,
    "correction_gain": 0.15,
    "corrections": [(0, 0.8), (3, 0.95)],
    "corrections_uncertain": [(0, 0.8), (3, 0.95)],
    "corrections_wrong": [(0, 0.8), (3, 0.1)],
    "acc_nec5": 0.7,
    "acc_nec5_random": 0.6,
    "leakage": 0.05,
}


def model_of(kind=CBM, **options):
    return kind(backbone=Identity(in_channels=4), num_outputs=2, concept_names=NAMES, **options)


def predictions(concepts: list[list[float]]) -> Predictions:
    count = len(concepts)
    return Predictions(
        prediction=torch.zeros(count, 2),
        label=torch.zeros(count, dtype=torch.long),
        index=torch.arange(count),
        concepts=torch.tensor(concepts),
        concept_labels=torch.tensor([[1.0, 0.0, 0.0]]).repeat(count, 1),
        diagnostics={},
        spoken_for=torch.tensor([[0.5, -0.2, 0.0], [-0.1, 0.3, 0.2]]),
    )


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.setattr("zoo.report_section.picture", lambda run, index: f"picture {index}")
    return Run(tmp_path)


def sections(run, metrics, model=None, found=None) -> dict:
    return {section.title: section for section in concept_sections(run, metrics, INFO, model or model_of(), found)}


def test_every_section_has_a_sentence_with_its_figures(run):
    found = sections(run, METRICS, found=predictions([[0.9, 0.1, 0.1], [0.2, 0.1, 0.1]]))
    assert list(found) == [
        "Concepts",
        "Most confused concepts",
        "What speaks for each class",
        "Correcting concepts",
        "What the names are worth",
    ]
    assert "90.0% of these names are right" in found["Concepts"].text
    assert "95.0% of the answers are right instead of 80.0%" in found["Correcting concepts"].text
    assert "10.0% are still right: this model listens" in found["Correcting concepts"].text
    assert "the names are worth 10.0 points" in found["What the names are worth"].text
    assert "5.0 points more often from the model's concepts" in found["What the names are worth"].text
    assert all(section.figures for title, section in found.items() if title != "Most confused concepts")


def test_verdicts_turn_with_the_figures(run):
    metrics = METRICS | {"acc_all_wrong": 0.75, "acc_nec5_random": 0.71, "leakage": -0.1}
    found = sections(run, metrics)
    assert "this model decides largely past its concepts" in found["Correcting concepts"].text
    assert "not shown to be worth more than random directions" in found["What the names are worth"].text
    assert "no leakage found" in found["What the names are worth"].text


def test_sections_without_figures_are_absent(run):
    assert list(sections(run, {"acc": 0.8})) == ["What speaks for each class"]
    assert sections(run, {"rmse": 1.0}, model_of(CEM)) == {}
    only_leakage = sections(run, {"samples": 9, "acc": 0.8, "leakage": 0.1})["What the names are worth"]
    assert (only_leakage.figures, "no leakage" in only_leakage.text) == ([], True)


def test_the_most_confused_concepts_come_first_with_the_surest_mistakes(run):
    rows = [[0.4, 0.1, 0.6], [0.1, 0.1, 0.1], [0.9, 0.1, 0.1]]
    section = sections(run, METRICS, found=predictions(rows))["Most confused concepts"]
    assert "of 3 images: wing (2), stem (1). " in section.text
    assert [(each["source"], each["caption"]) for each in section.pictures] == [
        ("picture 1", "wing: missed (10%)"),
        ("picture 0", "wing: missed (40%)"),
        ("picture 0", "stem: named, not there (60%)"),
    ]
    right = predictions([[0.9, 0.1, 0.1]])
    assert "Most confused concepts" not in sections(run, METRICS, found=right)


def test_few_images_show_nothing(run):
    found = sections(run, METRICS | {"samples": 60})
    assert "a difference that chance may make" in found["What the names are worth"].text


def test_weights_are_those_of_a_linear_head_on_the_concepts():
    model = model_of()
    assert torch.equal(torch.from_numpy(head_weights(model, (2, 3))), model.head[0].weight)
    assert head_weights(model_of(head_hidden=[3]), (2, 3)) is None
    assert head_weights(model_of(extra_dims=2), (2, 3)) is None
    assert head_weights(model_of(CEM), (2, 3)) is None


def test_weights_of_a_softmax_head():
    backbone = Identity(in_channels=4)
    backbone.encode_text = None
    model = LaBo(backbone=backbone, num_outputs=2, concepts=NAMES, concept_names=NAMES, concept_classes=[0, 1, 1])
    assert torch.equal(torch.from_numpy(head_weights(model, (2, 3))), model.weights)


def test_charts_of_a_head_that_is_not_linear_show_what_concepts_added(run):
    section = sections(run, METRICS, model_of(CEM), predictions([[0.9, 0.1, 0.1]]))["What speaks for each class"]
    ((chart, caption),) = section.figures
    assert caption == "what each concept added in the test images of the class"
    assert chart.startswith("<svg")
    assert section.wide


def test_page_of_a_trained_model(trained_run, zoo_command):
    page = (trained_run / "report.html").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles[2] == "Concepts"
    assert {"What speaks for each class", "Correcting concepts", "What the names are worth"} <= set(titles)
    assert "(control)" in page


def test_page_of_a_model_without_concepts(split_run):
    page = (split_run / "report.html").read_text()
    assert "oncept" not in re.sub(r"<p>Made with <code>.*", "", page)
    assert f"python -m zoo explain {split_run} IMAGE</code> shows where in an image the answer was read" in page
    assert (
        "zoo explain FOLDER image.png  # where in an image the answer was read"
        in (split_run / "MODEL_CARD.md").read_text()
    )
    assert "as a JPEG of quality 95 and" in page
    assert all(stage in page for stage in ("teacher", "distil", "finetune"))
