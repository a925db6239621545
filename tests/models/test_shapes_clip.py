"""The CLIP that ships: its hash, what it tells apart without an example, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo.data.captions import WORDS
from zoo.data.shapes import ShapesDataModule
from zoo.models import shapes_clip
from zoo.models.clip_backbone import Clip
from zoo.models.vision.clip import CLIP
from zoo.tasks.evaluation import predict, score

ASSET = Path(__file__).resolve().parents[2] / "zoo" / "assets" / "shapes_clip.safetensors"


@pytest.fixture(scope="module")
def backbone() -> Clip:
    return Clip(name="shapes_clip", pretrained="shapes", frozen=True)


def zero_shot(backbone: Clip, label_from: tuple[str, ...]) -> dict:
    data = ShapesDataModule(
        train_size=1,
        val_size=1,
        test_size=400,
        seed=77,
        label_from=label_from,
        held_out=12,
        held_out_from=("shape", "colour", "fill"),
    )
    data.use_preprocessing(backbone.preprocessing)
    facts = data.facts
    words = {"concept_names": facts.concept_names, "concept_groups": facts.concept_groups}
    model = CLIP(backbone=backbone, class_names=facts.class_names, **words)
    return score(predict(model, data.test_dataloader()), task="classification")


@pytest.mark.parametrize("label_from", [("colour", "fill", "shape"), ("fill", "shape")])
def test_it_names_combinations_that_it_never_saw(backbone, label_from):
    found = zero_shot(backbone, label_from)
    assert {name: value for name, value in found.items() if name.endswith("acc") and value < 0.9} == {}
    assert {"shape_acc", "colour_acc", "fill_acc", "size_acc", "position_acc", "background_acc"} <= found.keys()


def test_what_ships_is_small_and_described():
    facts = shapes_clip.facts()
    assert ASSET.stat().st_size == facts["bytes"] <= 4_000_000
    assert tuple(facts["words"]) == WORDS
    assert all(value.dtype == torch.float16 for value in load_file(ASSET).values())
    assert "experiment=shapes_clip" in facts["command"]


def test_the_interface_is_that_of_any_clip(backbone):
    images = torch.rand(2, 3, 64, 64)
    assert backbone(images).shape == (2, backbone.feature_dim)
    assert backbone.feature_map(images).shape == (2, backbone.feature_channels, 4, 4)
    assert backbone.encode_text(["a red shape", "striped"]).shape == (2, backbone.feature_dim)
    assert backbone.preprocessing["image_size"] == (64, 64)
    assert backbone.clip.logit_scale.exp() > 5
    again = Clip(name="shapes_clip", pretrained=False).eval()
    again.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        assert torch.equal(again(images), backbone(images))


def test_a_correction_outweighs_what_it_corrects(backbone):
    texts = backbone.encode_text(["a red circle, but blue", "a blue circle", "a red circle"])
    wanted, before = torch.cosine_similarity(texts[:1], texts[1:])
    assert wanted > before


def test_unknown_words_are_refused_in_one_line(backbone):
    with pytest.raises(ValueError, match=r"unknown word 'squares'.*did you mean square") as error:
        backbone.encode_text(["red squares"])
    assert "\n" not in str(error.value)


def test_weights_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes_clip, "facts", lambda: FACTS | {"sha256": "0" * 64})
    with pytest.raises(ValueError, match="wrong sha256"):
        Clip(name="shapes_clip", pretrained="shapes")
    with pytest.raises(ValueError, match="did you mean shapes"):
        Clip(name="shapes_clip", pretrained="shape")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(ASSET.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a safetensors file"):
        Clip(name="shapes_clip", pretrained=str(damaged))
    other = tmp_path / "other.safetensors"
    save_file({"backbone.net.weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="lacks or misfits") as error:
        Clip(name="shapes_clip", pretrained=str(other))
    assert "\n" not in str(error.value)


def test_a_run_s_weights_are_taken_from_its_file(tmp_path, backbone):
    copy = shutil.copy(ASSET, tmp_path / "model.safetensors")
    assert Clip(name="shapes_clip", pretrained=str(copy)).weights_key() == backbone.weights_key()


FACTS = json.loads(ASSET.with_suffix(".json").read_text())
