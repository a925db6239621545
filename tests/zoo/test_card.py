"""The model card: front matter the Hub reads, and what a finder of the weights needs."""

import json

import pytest
import yaml

from zoo import catalogue
from zoo.card import card_of, model_card
from zoo.errors import UserError

INFO = {
    "name": "cbm",
    "task": "classification",
    "class_names": ["zero", "one"],
    "concept_names": ["loop", "bar|stem"],
    "preprocessing": {"image_size": [8, 8], "mean": [0.5], "std": [0.5]},
    "data": "digits",
    "zoo_version": "0.1.0",
}
RESULT = {
    "metrics": {
        "samples": 180,
        "acc": 0.9444,
        "concept_acc": 0.97,
        "per_concept": {"loop": 0.99, "bar|stem": 0.75},
        "corrections": [[0, 0.9444], [6, 0.96], [12, 1.0]],
        "not_measured": {"acc_nec5": "no rows"},
        "parameters": 12345,
        "rate": 1.5,
    }
}


@pytest.fixture
def entry(small_catalogue):
    return catalogue.entry("cbm")


def front_matter(card: str) -> dict:
    opening, text, _ = card.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(text)


def test_front_matter(entry):
    assert front_matter(model_card(INFO, RESULT, entry)) == {
        "tags": ["bottleneck-zoo", "cbm", "concept", "concept-bottleneck"],
        "library_name": "bottleneck-zoo",
        "license": "apache-2.0",
        "datasets": ["digits"],
        "metrics": ["accuracy"],
        "pipeline_tag": "image-classification",
    }


def test_the_hub_s_own_reader_accepts_it(entry):
    from huggingface_hub import ModelCard

    data = ModelCard(model_card(INFO, RESULT, entry)).data
    assert data.license == "apache-2.0"


def test_contents(entry):
    card = model_card(INFO, RESULT, entry, repo="org/name")
    for text in (
        "# Concept bottleneck model trained on digits",
        "[Koh et al., Concept Bottleneck Models, ICML 2020](https://arxiv.org/abs/2007.04612)",
        "Classes (2): zero, one",
        'snapshot_download("org/name")',
        "| accuracy | 0.9444 |",
        "| parameters | 12,345 |",
        "| rate | 1.5 |",
        "on 180 test samples",
        "| bar\\|stem | 0.75 |",
        "| 6 | 0.96 |",
        "| not measured: no rows |",
        "| image_size | [8, 8] |",
        "Concepts below 80 % accuracy: bar|stem.",
        "| CUB | error | 0.199 | joint |",
        "yewsiang/ConceptBottleneck",
    ):
        assert text in card


def test_the_usage_snippet_is_valid_python(entry):
    card = model_card(INFO, RESULT, entry, repo="org/name")
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")


def test_without_results_concepts_or_catalogue():
    card = model_card({"name": "mine", "task": "regression", "class_names": ["y"], "concept_names": []}, {})
    assert "Not evaluated yet." in card
    assert "## Concepts" not in card
    assert "corrected" not in card
    assert "Targets (1): y" in card
    assert front_matter(card)["license"] == "other"


def test_card_of_a_folder(tmp_path, small_catalogue):
    with pytest.raises(UserError, match=r"model\.json: there is no such file"):
        card_of(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(INFO))
    assert "Not evaluated yet." in card_of(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result\.json: no valid JSON"):
        card_of(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    assert "| accuracy | 0.9444 |" in card_of(tmp_path)
