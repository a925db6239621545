"""Captions made of names: true, of every form, in the data's own words, and the same for the same seed."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import write_folder
from zoo.data.concept_captions import LONGEST, ConceptCaptions, split_words, vocabulary
from zoo.data.errors import DataError
from zoo.data.folder import FolderDataModule
from zoo.data.tabular import TabularDataModule

CLASSES = ("3", "Ankle_boot")
CONCEPTS = ("thumb_extended", "sole::rubber", "sole::leather", "index")
ROWS = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
WORDS = vocabulary((*CLASSES, *CONCEPTS))


def captions(seed: int = 0, count: int = 400) -> ConceptCaptions:
    return ConceptCaptions(
        names=["a.png", "b.png", "c.png"],
        labels=np.array([0, 1, 0]),
        concepts=ROWS,
        class_names=CLASSES,
        concept_names=CONCEPTS,
        count=count,
        seed=seed,
    )


def said(caption: str) -> set[str]:
    """The names that a caption holds, a correction included and what it corrects left out."""
    text = caption.rpartition(" but ")[2]
    known = {" ".join(split_words(name)): name for name in (*CLASSES, *CONCEPTS)}
    return {name for words, name in known.items() if re.search(rf"\b{words}\b", text)}


@pytest.mark.parametrize(("item", "label", "present"), [(0, 0, {0, 3}), (1, 1, {1}), (2, 0, set())])
def test_captions_are_true_and_say_each_name_alone(item, label, present):
    true = {CLASSES[label], *(CONCEPTS[number] for number in present)}
    alone = set()
    for caption in captions()[item]:
        assert set(split_words(caption)) <= set(WORDS)
        assert said(caption), caption
        assert said(caption) <= true, caption
        alone |= said(caption) if len(said(caption)) == 1 else set()
    assert alone == true
    assert any(said(caption) == true for caption in captions()[item])
    assert "thumb extended" not in " ".join(captions()[1]).replace("thumb extended, but", "")


def test_many_long_names_stay_within_bounds():
    names = [f"{letter}{letter} has a very long curved beak" for letter in "abcdefgh"]
    many = ConceptCaptions(
        names=["x"],
        labels=np.array([0]),
        concepts=np.ones((1, 8)),
        class_names=["owl", "cat"],
        concept_names=names,
        count=300,
        seed=0,
    )
    assert max(len(split_words(caption)) for caption in many[0]) <= LONGEST


def test_the_seed_and_the_item_decide():
    assert captions()[0] == captions()[0]
    assert captions()[0] != captions(seed=1)[0]
    assert captions(count=5)[0] == captions()[0][:5]
    assert len(captions()) == 3


def concept_folder(root: Path) -> Path:
    write_folder(root, per_class=10)
    rows = [f"{name}/{index}.png,{int(name == 'cat')},1" for name in ("cat", "dog") for index in range(10)]
    (root / "concepts.csv").write_text("\n".join(["file,has_whiskers,has_tail", *rows]) + "\n")
    return root


def test_batches_carry_them_and_the_data_know_their_words(tmp_path):
    data = FolderDataModule(root=str(concept_folder(tmp_path)), captions=4, num_workers=0, batch_size=8)
    assert {"cat", "dog", "whiskers", "tail", "photo", "but"} <= set(data.words)
    seen = set()
    for epoch in range(4):
        data.setup()
        data.train_set.set_epoch(epoch)
        for batch in data.train_dataloader():
            for label, caption in zip(batch["label"].tolist(), batch["caption"]):
                assert set(split_words(caption)) <= set(data.words)
                assert label == 0 or "whiskers" not in caption.rpartition(" but ")[2]
                seen.add(caption)
    assert "has tail" in seen
    assert "has whiskers" in seen


def test_targets_have_no_captions():
    with pytest.raises(DataError, match=r"^data\.captions=2: "):
        TabularDataModule(captions=2).setup()
