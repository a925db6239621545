"""Contrastive training: the loss against its definition, captions or prompts, and what evaluation keeps."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from zoo.models.clip_backbone import Clip
from zoo.models.contract import Output
from zoo.models.vision.clip import CLIP

CLASSES = ("blue circle", "red circle", "red square")
CONCEPTS = ("shape::circle", "shape::square", "colour::blue", "colour::red")
GROUPS = (("shape", (0, 1)), ("colour", (2, 3)))


@pytest.fixture(scope="module")
def model() -> CLIP:
    torch.manual_seed(0)
    backbone = Clip(name="shapes_clip")
    return CLIP(backbone=backbone, class_names=CLASSES, concept_names=CONCEPTS, concept_groups=GROUPS)


def batch(**more) -> dict:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return {"image": images, "label": torch.tensor([0, 2, 1, 2]), "index": torch.arange(4)} | more


def test_the_loss_is_clip_s_where_all_captions_differ(model):
    captions = ["a blue circle", "red", "shape square", "striped"]
    data = batch(caption=captions)
    terms = model.train().loss(model.forward_batch(data), data)
    clip = model.backbone.clip
    pictures = normalize(clip.encode_image(data["image"]), dim=1)
    logits = clip.logit_scale.exp() * pictures @ normalize(clip.encode_text(model.backbone.tokenize(captions)), dim=1).T
    own = torch.arange(4)
    torch.testing.assert_close(terms["loss"], (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2)
    clip.requires_grad_(True)
    terms = model.loss(model.forward_batch(data), data)
    terms["loss"].backward()
    assert all(p.grad is not None for name, p in clip.named_parameters())


def test_captions_that_read_the_same_are_all_right(model):
    data = batch(caption=["red", "a circle", "Red!", "fog"])
    output = model.eval().forward_batch(data)
    texts = normalize(model.backbone.encode_text(data["caption"]), dim=1)
    logits = model.logits(output.latent, texts)
    chosen = torch.tensor([[0.5, 0, 0.5, 0], [0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1]])
    wanted = -(chosen * (logits.log_softmax(1) + logits.T.log_softmax(1))).sum() / 8
    torch.testing.assert_close(model.loss(output, data)["loss"], wanted)


def test_without_captions_the_class_prompts_take_their_place(model):
    named = batch(caption=[f"a photo of a {CLASSES[label]}" for label in (0, 2, 1, 2)])
    output = model.eval().forward_batch(named)
    assert torch.equal(model.loss(output, batch())["loss"], model.loss(output, named)["loss"])


def test_concepts_are_measured_in_their_groups(model):
    words = normalize(model.backbone.encode_text(list(CONCEPTS)), dim=1)
    output = Output(torch.zeros(2, 3), latent=torch.stack([words[0] + words[3], words[1] + words[3]]))
    cosines = normalize(output.latent, dim=1) @ words.T
    truth = torch.zeros(2, 4)
    for row in range(2):
        truth[row, cosines[row, :2].argmax()] = 1
        truth[row, 2 + (1 - cosines[row, 2:].argmax())] = 1
    found = model.eval().diagnostics(output, {"concepts": truth})
    assert found["shape_acc"].tolist() == [1, 1]
    assert found["colour_acc"].tolist() == [0, 0]
    assert model.diagnostics(output, {}) == {}


def test_naming_concepts_is_a_further_term(model):
    concepts = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 1, 0]])
    data = batch(concepts=concepts)
    output = model.eval().forward_batch(data)
    plain = model.loss(output, data)
    assert set(plain) == {"contrastive", "loss"}
    model.concept_weight = 0.5
    terms = model.loss(output, data)
    model.concept_weight = 0.0
    words = normalize(model.backbone.encode_text(list(CONCEPTS)), dim=1)
    logits = model.logits(output.latent, words)
    right = logits[:, :2].log_softmax(1)[concepts[:, :2] == 1] + logits[:, 2:].log_softmax(1)[concepts[:, 2:] == 1]
    torch.testing.assert_close(terms["concepts"], -right.mean() / 2)
    torch.testing.assert_close(terms["loss"], plain["loss"] + terms["concepts"])


def test_evaluation_forgets_its_texts_when_training_goes_on(model):
    first = model.eval().class_features()
    assert model.class_features() is first
    with torch.no_grad():
        model.backbone.clip.token_embedding.weight.mul_(2)
    model.train()
    assert not torch.equal(model.eval().class_features(), first)


def test_words_it_does_not_know_are_one_line():
    with pytest.raises(ValueError, match="unknown word 'zebra'") as error:
        CLIP(backbone=Clip(name="shapes_clip"), class_names=("zebra",))
    assert "\n" not in str(error.value)


def test_concepts_of_no_group_are_told_apart_over_the_images():
    torch.manual_seed(0)
    alone = CLIP(
        backbone=Clip(name="shapes_clip"),
        class_names=CLASSES,
        concept_names=("red", "small", "shape::circle", "shape::square"),
        concept_groups=(("shape", (2, 3)),),
        concept_weight=1.0,
    ).eval()
    concepts = torch.tensor([[1.0, 1, 0, 1], [0, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 0]])
    data = batch(concepts=concepts)
    output = alone.forward_batch(data)
    words = normalize(alone.backbone.encode_text(["red", "small", "shape circle", "shape square"]), dim=1)
    logits = alone.logits(output.latent, words)
    wanted = -logits[:, 0].log_softmax(0)[[0, 2]].mean() - logits[:, 1].log_softmax(0).mean()
    wanted -= logits[:, 2:].log_softmax(1)[concepts[:, 2:] == 1].mean()
    torch.testing.assert_close(alone.loss(output, data)["concepts"], wanted)
    near = Output(torch.zeros(4, 3), latent=torch.where(concepts[:, :1] == 1, 1.0, -1.0) * words[:1])
    assert alone.diagnostics(near, {"concepts": concepts})["word_auc"] == 1  # all four are small: no pair to compare
