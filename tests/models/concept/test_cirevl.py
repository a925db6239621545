"""CIReVL: retrieval metrics, captions and rewriting, ranking."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.golden.cases import Case, adapter
from zoo.models.concept.cirevl import CIReVL, pad_to_ratio
from zoo.models.concept.query_texts import (
    FileCaptioner,
    FileRewriter,
    LanguageModelRewriter,
    TemplateRewriter,
    read_answer,
)
from zoo.tasks.metrics.composed_retrieval import circo, cirr, fashion_iq

WORDS = ["red", "blue", "circle", "square", "big"]


class BagOfWords(nn.Identity):
    """Images are word counts, texts are counted."""

    feature_dim = len(WORDS)

    def encode_text(self, texts):
        return torch.tensor([[float(text.split().count(word)) for word in WORDS] for text in texts])


@adapter("cirevl", "retrieval_metrics")
def retrieval_metrics(case: Case):
    a, i = case.arguments, case.input

    def cut_offs(names, kind):
        return [int(name.split("@")[1]) for name in names if name.startswith(kind)]

    similarity = i["query_features"] @ i["index_features"].mT
    got = {
        "fiq": fashion_iq(similarity, i["target_idx"], at=cut_offs(a["fiq"], "Recall")),
        "cirr": cirr(
            similarity,
            i["target_idx"],
            i["reference_idx"],
            i["cirr_group_idx"],
            at=cut_offs(a["cirr"], "recall"),
            group_at=cut_offs(a["cirr"], "group"),
        ),
        "circo": circo(similarity, i["circo_targets_idx_padded"], at=cut_offs(a["circo"], ("mAP", "recall"))),
    }
    return {
        f"output/{name}": torch.tensor([scores[key] for key in a[name]], dtype=torch.float64)
        for name, scores in got.items()
    }


def test_a_query_that_is_a_gallery_vector_finds_it_first():
    gallery = F.normalize(torch.randn(30, 8), dim=-1)
    target = torch.tensor([4, 17])
    assert fashion_iq(gallery[target] @ gallery.mT, target, at=(1,)) == {"Recall@1": 100}


def test_map_with_one_target_is_the_inverse_of_its_rank():
    similarity = -torch.arange(10.0)[None]
    for rank in (1, 3, 5, 6):
        target = torch.tensor([[rank - 1, -1]])
        assert circo(similarity, target, at=(5,))["mAP@5"] == pytest.approx(100 / rank if rank <= 5 else 0)


def test_map_divides_by_the_targets_that_fit():
    similarity, targets = -torch.arange(10.0)[None], torch.tensor([[0, 3, 9]])
    assert circo(similarity, targets, at=(2,))["mAP@2"] == pytest.approx(50)
    assert circo(similarity, targets, at=(10,))["mAP@10"] == pytest.approx(100 * (1 + 2 / 4 + 3 / 10) / 3)


def test_dropping_the_reference_moves_ranks_by_at_most_one_and_a_group_is_ranked_alone():
    similarity = -torch.arange(10.0)[None]
    scores = cirr(similarity, torch.tensor([2]), torch.tensor([0]), torch.tensor([[5, 2, 7, 8, 1]]), at=(1, 2))
    assert (scores["recall@1"], scores["recall@2"]) == (0, 100)
    assert (scores["group_recall@1"], scores["group_recall@2"]) == (0, 100)


def test_an_answer_without_the_line_falls_back_to_the_instruction():
    assert read_answer("well\n  Edited Description: a blue square \nmore", "x") == "a blue square"
    assert read_answer("Edited Description:  ", "make it blue") == "make it blue"
    assert read_answer("no idea", "make it blue") == "make it blue"
    ask = LanguageModelRewriter(lambda prompt: f"Edited Description: {prompt.count('a cup')}")
    assert ask("a cup", "no handle") == "1"


def test_file_backed_captions_and_texts(tmp_path):
    captions, texts = tmp_path / "captions.json", tmp_path / "texts.json"
    captions.write_text(json.dumps({"1.png": "a red circle"}))
    texts.write_text(json.dumps({"a red circle": {"as a square": "a red square"}}))
    caption = FileCaptioner(captions)("1.png")
    assert FileRewriter(texts)(caption, "as a square") == "a red square"
    with pytest.raises(ValueError, match="no caption of '2"):
        FileCaptioner(captions)("2.png")
    with pytest.raises(ValueError, match="no text for caption"):
        FileRewriter(texts)(caption, "bigger")
    texts.write_text("[]")
    with pytest.raises(ValueError, match="a list where a JSON object"):
        FileRewriter(texts)("a red circle", "as a square")


def test_an_image_and_an_instruction_find_the_image_and_an_edited_caption_finds_another():
    gallery = torch.tensor([[1.0, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [0, 1, 0, 1, 0]])
    model = CIReVL(backbone=BagOfWords())
    model.captioner = {"a.png": "red thing"}.__getitem__
    batches = [{"image": gallery[[3, 1]], "index": torch.tensor([3, 1])}]
    batches += [{"image": gallery[[0, 2]], "index": torch.tensor([0, 2])}]
    model.prepare(SimpleNamespace(train_dataloader=lambda: batches))
    assert model.stages() == []
    assert model.fitted_arguments() == {"gallery_size": 4}
    texts = model.describe(["a.png"], ["as a square"])
    assert texts == ["red thing, but as a square"]
    assert model.search(texts).prediction.argmax().item() == 1
    assert model.search([texts[0].replace("red", "blue")]).prediction.argmax().item() == 3
    assert model.search(["square"], reference=gallery[2:3]).prediction.argmax().item() == 3  # a blue one
    assert model(gallery).prediction.argmax(1).tolist() == [0, 1, 2, 3]
    again = CIReVL(backbone=BagOfWords(), **model.fitted_arguments())
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(gallery).prediction, model(gallery).prediction)


def test_what_it_lacks_is_said_in_one_line():
    with pytest.raises(ValueError, match="choose a CLIP"):
        CIReVL(backbone=nn.Identity())
    with pytest.raises(ValueError, match="no captions"):
        CIReVL(backbone=BagOfWords()).describe(["a.png"], ["bigger"])


def test_padding_stops_at_the_ratio():
    assert pad_to_ratio(torch.ones(3, 100, 110)).shape == (3, 100, 110)
    padded = pad_to_ratio(torch.ones(3, 50, 100))
    assert padded.shape == (3, 80, 100)
    assert padded.sum() == 3 * 50 * 100


def test_the_template_keeps_one_sentence():
    assert TemplateRewriter()("A red cup.", " make it blue. ") == "A red cup, but make it blue"
