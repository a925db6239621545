"""Texts by file, in the formats in which concept lists and descriptions of classes are published."""

import json
from pathlib import Path

import pytest

from tests.shared_data import shared_data
from zoo.build import create_model
from zoo.config import compose_config
from zoo.errors import UserError
from zoo.word_lists import read_texts


def composed(*words: str) -> dict:
    return compose_config(["data=shapes", *words])["model"]


def test_a_text_a_line_without_repetitions_and_a_last_line_without_an_end(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes("\ufeffred circle\r\nblue square\n\nred circle\nnight".encode())
    assert composed("model=label_free_cbm", f"model.concepts={file}")["concepts"] == [
        "red circle",
        "blue square",
        "night",
    ]


@pytest.mark.parametrize(("model", "key"), [("labo", "candidates"), ("heba", "descriptions"), ("apt", "descriptions")])
def test_texts_of_classes(model, key, tmp_path):
    file = tmp_path / "class2concepts.json"
    file.write_text(json.dumps({"solid cross": ["a solid cross", "two bars", "two bars"], "hollow cross": ["bars"]}))
    wanted = {"solid cross": ["a solid cross", "two bars"], "hollow cross": ["bars"]}
    assert composed(f"model={model}", f"model.{key}={file}")[key] == wanted


@pytest.mark.parametrize(
    ("name", "content", "key", "message"),
    [
        ("gone.txt", None, "model=sparse_cbm model.concepts", "there is no such file"),
        ("old.txt", "caf\u00e9".encode("latin-1"), "model=sparse_cbm model.concepts", "is no UTF-8 text"),
        ("half.json", b'{"a": [', "model=labo model.candidates", "is no JSON: line 1"),
        ("flat.txt", b"red\nblue", "model=labo model.candidates", "holds no texts of classes"),
        ("text.json", b'{"a": "red"}', "model=labo model.candidates", "holds no texts of classes"),
        ("classes.json", b'{"a": ["red"]}', "model=sparse_cbm model.concepts", "holds no list of texts"),
    ],
)
def test_a_file_that_does_not_do_is_one_line(name, content, key, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    model, key = key.split()
    with pytest.raises(UserError, match=message) as raised:
        composed(model, f"{key}={tmp_path / name}")
    assert len(raised.value.lines) == 1


def test_only_arguments_that_take_texts_are_read(tmp_path):
    captions = tmp_path / "captions.json"
    captions.write_text("{}")
    assert composed("model=cirevl", f"model.captions={captions}")["captions"] == str(captions)
    with pytest.raises(UserError, match="a list, each a whole number"):
        composed("model=cbm", f"model.head_hidden={captions}")


def test_in_python_too(tmp_path):
    (tmp_path / "words.txt").write_text("red circle\nblue square")
    model = create_model("label_free_cbm", data="shapes", concepts=str(tmp_path / "words.txt"))
    assert model.concept_names == ("red circle", "blue square")
    with pytest.raises(UserError, match="there is no such file"):
        create_model("label_free_cbm", data="shapes", concepts=str(tmp_path / "gone.txt"))


def test_published_lists():
    folder: Path = shared_data("concepts")
    words = read_texts(folder / "sparsecbm_conceptnet" / "conceptnet_cifar10_filtered_new.txt", list)
    assert (len(words), words[:3]) == (120, ["trunk", "french person", "tail"])
    flowers = read_texts(folder / "waffleclip_descriptors" / "descriptors_flowers102.json", dict)
    assert len(flowers) == 102
    assert flowers["pink primrose"][0] == "delicate flower"


def test_what_is_sifted_from_a_list_is_told_and_kept(zoo_command, tmp_path):
    words = ["red", "a red shape", "hollow circle", "striped", "left", "a small red shape on the left on night"]
    (tmp_path / "words.txt").write_text("\n".join(words))
    small = ("data=shapes", "data.train_size=200", "data.val_size=40", "data.test_size=40", "model=label_free_cbm")
    cutoffs = ("model.clip_cutoff=-1", "model.interpretability_cutoff=-1")
    code, out, _ = zoo_command(
        "train", *small, *cutoffs, f"model.concepts={tmp_path / 'words.txt'}", f"output_dir={tmp_path}"
    )
    assert code == 0
    told = [line for line in out.splitlines() if "removed" in line]
    assert told[:2] == [
        "1 concept removed (longest=30): a small red shape on the left on night",
        "1 concept removed (like a class, class_cutoff=0.85): hollow circle",
    ]
    run = tmp_path / "latest"
    found = json.loads((run / "model.json").read_text())
    assert {"striped", "left"} <= set(found["concept_names"]) < set(words)
    assert [name for names in found["extra"]["removed_concepts"].values() for name in names][:2] == [words[5], words[2]]
    assert "Removed (longest=30): a small red shape on the left on night." in (run / "MODEL_CARD.md").read_text()
