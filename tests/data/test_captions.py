"""Captions are true, of every form, and silent about what is held out."""

import re
from random import Random

import numpy as np
import pytest

from zoo.data.captions import WORDS, draw_captions, phrase
from zoo.data.errors import DataError
from zoo.data.scenes import ATTRIBUTES, describe, in_words
from zoo.data.shapes import ShapesDataModule

SCENE = {name: values[0] for name, values in ATTRIBUTES.items()}


def stated(caption: str) -> dict[str, str]:
    """What a caption says, a correction included."""
    words = re.findall("[a-z]+", caption)
    return {name: word for word in words for name, values in ATTRIBUTES.items() if word in values}


def test_captions_are_true_and_say_each_attribute_alone():
    captions = draw_captions(SCENE, 2000, Random(0))
    for caption in captions:
        assert set(re.findall("[a-z]+", caption)) <= set(WORDS)
        assert stated(caption).items() <= SCENE.items()
    alone = [tuple(stated(caption)) for caption in captions if len(stated(caption)) == 1]
    assert set(alone) == {(name,) for name in ATTRIBUTES}
    assert any(", but " in caption for caption in captions)
    assert "striped square" in draw_captions(SCENE | {"fill": "striped", "shape": "square"}, 2000, Random(1))


def test_a_phrase_of_everything_is_the_description():
    values = np.array([1, 2, 2, 1, 0, 3])
    assert phrase(in_words(values)) == describe(values)


@pytest.mark.parametrize("attributes", [("shape", "colour"), ("shape", "colour", "fill")])
def test_no_training_picture_or_caption_has_a_held_out_combination(attributes):
    data = ShapesDataModule(
        train_size=400, val_size=50, test_size=200, held_out=4, held_out_from=attributes, captions=12
    )
    columns = [list(ATTRIBUTES).index(name) for name in attributes]
    held_out = {tuple(row) for row in data.scenes("test")[0][:, columns].tolist()}
    assert len(held_out) == 4
    named = [{ATTRIBUTES[name][value] for name, value in zip(attributes, row)} for row in held_out]
    for split in ("train", "val"):
        assert not held_out & {tuple(row) for row in data.scenes(split)[0][:, columns].tolist()}
        for caption in (text for texts in data.draw_captions(split) for text in texts):
            words = set(re.findall("[a-z]+", caption.partition(", but ")[0]))
            assert not any(values <= words for values in named), caption


def test_a_batch_carries_the_next_caption_in_each_epoch():
    data = ShapesDataModule(train_size=8, val_size=4, test_size=4, pixels=16, captions=3, batch_size=8)
    loader = data.train_dataloader()
    texts = data.draw_captions("train")
    for epoch in (0, 1, 2, 3):
        data.train_set.set_epoch(epoch)
        for batch in loader:
            assert [texts[i][epoch % 3] for i in batch["index"].tolist()] == list(batch["caption"])


def test_there_are_none_unless_asked_for():
    data = ShapesDataModule(train_size=8, val_size=4, test_size=4, pixels=16)
    data.setup()
    assert "caption" not in data.train_set[0]
    with pytest.raises(DataError, match=r"^data\.captions=-1: give at least 0 sentences for each item$"):
        ShapesDataModule(captions=-1)
