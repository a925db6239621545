"""A CLIP with words of its own: from its data, from a run's file, and refused in one line where one is missing."""

import json

import pytest
import torch
from safetensors.torch import save_file

from zoo.models import shapes_clip, word_clip
from zoo.models.clip_backbone import Clip

WORDS = ("a", "fingertip", "index", "photo", "thumb", "3")


@pytest.fixture
def run(tmp_path):
    """The file that a run of model=clip leaves, as far as another model reads it."""
    torch.manual_seed(1)
    clip = Clip(name="word_clip", words=WORDS, context=9).eval()
    described = {"recipe": {"backbone": {"arguments": {"words": WORDS}}}}
    state = {word_clip.PREFIX + key: value for key, value in clip.clip.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"zoo": json.dumps(described)})
    return clip, str(tmp_path / "model.safetensors")


def test_a_run_brings_its_words_along(run):
    clip, path = run
    other_data = {"words": ["a", "zebra"]}
    loaded = Clip(name="word_clip", pretrained=path, frozen=True, **other_data)
    assert loaded.tokenizer.words == WORDS
    assert loaded.weights_key() == clip.weights_key()
    texts = ["thumb", "a photo, 3"]
    torch.testing.assert_close(loaded.encode_text(texts), clip.encode_text(texts))
    told = Clip.arguments_of_weights(name="word_clip", pretrained=path)
    assert Clip(name="word_clip", **told).clip.state_dict().keys() == clip.clip.state_dict().keys()
    assert told == {"words": list(WORDS), "context": 9}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("thumbs", "unknown word 'thumbs' in 'thumbs': did you mean thumb?"),
        ("a zebra", "unknown word 'zebra' in 'a zebra': the text tower knows 6 words, such as a, fingertip, index"),
        (" ".join(["a"] * 9), "this text tower reads at most 8"),
    ],
)
def test_what_it_cannot_read_is_one_line(run, text, message):
    loaded = Clip(name="word_clip", pretrained=run[1])
    with pytest.raises(ValueError, match="word") as error:
        loaded.tokenize([text])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_words_has_those_that_ship():
    told = Clip.arguments_of_weights(name="word_clip", pretrained="shapes")
    assert told["words"] == shapes_clip.facts()["words"]
    shipped, same = (Clip(name=name, pretrained="shapes") for name in ("shapes_clip", "word_clip"))
    assert shipped.weights_key() == same.weights_key()


def test_the_experiment_that_made_what_ships_makes_the_same_network():
    """It gives the words of data=shapes, and no weights."""
    state = Clip(name="shapes_clip", words=shapes_clip.facts()["words"]).clip.state_dict()
    shipped = word_clip.weights("shapes")
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in shipped.items()}


def test_networks_of_open_clip_have_no_words():
    assert Clip.arguments_of_weights(name="ViT-B-32", pretrained="openai") == {"words": None, "context": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "word_clip has no words: give"),
        ({"pretrained": "nowhere"}, "no weights 'nowhere' and there is no such file"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Clip(name="word_clip", **arguments)
    assert "\n" not in str(error.value)
