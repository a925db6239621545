"""The page's session without a browser: answers, corrections, groups, and a table that train accepts."""

import csv
import io
import shlex
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.zoo.conftest import train
from zoo.data.errors import ImageError
from zoo.errors import UserError
from zoo.explanation import corrections, explain
from zoo.inference import read_images
from zoo.serve.session import Session
from zoo.trained import open_trained


@pytest.fixture(scope="module")
def trained(trained_run):
    return open_trained(str(trained_run))


@pytest.fixture
def session(trained):
    return Session(trained)


@pytest.fixture
def eight(session, digit_files):
    return session.add("8.png", (digit_files / "8.png").read_bytes())


def rows(session):
    return list(csv.DictReader(io.StringIO(session.table())))


def test_answer_is_that_of_explain(session, eight, trained, digit_files):
    image = read_images([digit_files / "8.png"], session.transform)[0][digit_files / "8.png"]
    found = explain(trained, image)
    assert eight.seen == pytest.approx(found.answer["concepts"])
    assert eight.found.contributions == pytest.approx(found.contributions)
    assert eight.answer["class"] == "8"
    assert len(eight.answer["classes"]) == 5

    session.set(eight, "lower_loop", 0)
    session.set(eight, "lower_open_left", 1)
    session.explain(eight)
    intervene = corrections(["lower_loop=0", "lower_open_left=1"], trained.info)
    assert eight.answer["class"] == explain(trained, image, intervene).corrected["class"] == "9"
    assert eight.found.about == "9"


def test_undoing_gives_the_first_answer_back(session, eight):
    before = eight.found
    session.choose(eight, "upper_stem", True)
    session.explain(eight)
    assert eight.found != before
    eight.corrections.clear()
    session.explain(eight)
    assert eight.found == before


def test_one_of_a_group_rules_out_the_others(session, eight):
    session.choose(eight, "lower_stem", True)
    lower = {name: value for name, value in eight.concepts.items() if name.startswith("lower")}
    assert lower == {name: float(name == "lower_stem") for name in lower}
    assert set(eight.corrections) == set(lower)
    session.choose(eight, "top_bar", False)
    assert set(eight.corrections) == {*lower, "top_bar"}


def test_values_stay_between_absent_and_present(session, eight):
    session.set(eight, "top_bar", 7)
    assert eight.corrections == {"top_bar": 1.0}
    with pytest.raises(UserError, match="did you mean top_bar"):
        session.set(eight, "top_bat", 1)


def test_table_has_a_row_for_each_corrected_picture(session, eight, digit_files):
    session.add("folder/1.png", (digit_files / "1.png").read_bytes())
    named = session.add("C:\\pictures\\0.png", (digit_files / "0.png").read_bytes())
    assert rows(session) == []
    session.set(eight, "top_bar", 0.25)
    named.label = "0"
    first, second = rows(session)
    assert (first["file"], second["file"]) == ("8.png", "0/0.png")
    assert list(first) == ["file", *session.info.concept_names]
    assert first["top_bar"] == "0.25"
    assert float(first["upper_loop"]) == pytest.approx(eight.seen["upper_loop"], rel=1e-3)


def test_namesakes_are_told(session, eight, digit_files):
    other = session.add("8.png", (digit_files / "1.png").read_bytes())
    session.set(eight, "top_bar", 0)
    assert session.namesakes() == []
    session.set(other, "top_bar", 0)
    assert session.namesakes() == ["8.png"]
    other.label = "1"
    assert session.namesakes() == []


def test_command_that_learns_from_the_table(session):
    line = "python -m zoo train model=cbm data=folder data.root=FOLDER data.concepts=c.csv data.image_size=8"
    assert session.command("c.csv") == f"{line} data.channels=1"


def test_the_command_keeps_a_backbone_that_is_not_the_usual_one(session):
    config = session.trained.run.config() | {"backbone_name": "mlp"}
    other = replace(session.trained, run=SimpleNamespace(config=lambda: config))
    assert " data.concepts=c.csv backbone=mlp data.image_size=8" in Session(other).command("c.csv")


def test_no_picture_is_refused_and_leaves_nothing(session):
    with pytest.raises(ImageError):
        session.add("a.png", b"no picture")
    assert session.pictures == []


@pytest.mark.slow
def test_train_accepts_the_table(session, tmp_path):
    """Class folders of digits with the concepts of their classes; one image is corrected on the page."""
    from PIL import Image

    from zoo.data.digits import DigitsDataModule, concept_matrix
    from zoo.data.folder import FolderDataModule

    data = DigitsDataModule()
    data.setup()
    for index, label in enumerate(data.train_set.labels[:120].tolist()):
        folder = tmp_path / "digits" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.raw("train", index).squeeze(-1)).save(folder / f"{index}.png")
    names = session.info.concept_names
    lines = [f"{digit}," + ",".join(f"{value:g}" for value in row) for digit, row in enumerate(concept_matrix())]
    (tmp_path / "digits" / "class_concepts.csv").write_text("\n".join([f"class_name,{','.join(names)}", *lines]))

    file = next((tmp_path / "digits" / "8").iterdir())
    picture = session.add(file.name, file.read_bytes())
    picture.label = "8"
    session.choose(picture, "lower_bowl", True)
    table = tmp_path / "corrections.csv"
    table.write_text(session.table())

    words = shlex.split(session.command(str(table)).replace("FOLDER", str(tmp_path / "digits")))[4:]
    run = train(tmp_path / "outputs", *words, "backbone.widths=[8,8]", "trainer=debug")
    again = Session(open_trained(str(run))).command("c.csv")
    assert f"data.root={tmp_path / 'digits'}" in again
    learnt = FolderDataModule(root=str(tmp_path / "digits"), concepts=str(table), channels=1, image_size=8)
    learnt.setup()
    parts = (learnt.train_set, learnt.val_set, learnt.test_set)
    found = {name: part[i]["concepts"].tolist() for part in parts for i, name in enumerate(part.names)}
    corrected = found.pop(f"8/{file.name}")
    assert corrected[names.index("lower_bowl")] == 1
    assert corrected[names.index("lower_loop")] == 0
    usual = concept_matrix().tolist()
    assert all(row == usual[int(name[0])] for name, row in found.items())
