"""explain: contributions that add up, corrections that change the answer, a picture, and clear refusals."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import zoo
from tests.zoo.conftest import train
from zoo.models.contract import Output


def test_contributions_add_up_to_the_logit(zoo_command, trained_run, digit_files):
    code, out, err = zoo_command("explain", str(trained_run), str(digit_files / "8.png"), "--json")
    assert (code, err) == (0, [])
    found = json.loads(out)
    assert (found["about"], found["corrected"], found["picture"]) == ("8", None, None)
    assert max(found["contributions"], key=found["contributions"].get) == "upper_loop"
    head = zoo.load(str(trained_run)).head[0]
    concepts = torch.tensor(list(found["answer"]["concepts"].values()))
    logit = head(concepts)[8] - head.bias[8]
    assert sum(found["contributions"].values()) == pytest.approx(logit.item(), abs=1e-5)


def test_correction(zoo_command, trained_run, digit_files, tmp_path):
    picture = tmp_path / "why.png"
    words = ["--set", "lower_loop=0", "--set", "lower_open_left=1", "--out", str(picture)]
    code, out, err = zoo_command("explain", str(trained_run), str(digit_files / "8.png"), *words)
    assert (code, err) == (0, [])
    assert out.startswith("8 (")
    assert "corrected: 9 (" in out
    assert "set to" in out
    with Image.open(picture) as drawn:
        assert drawn.size[0] > drawn.size[1] > 300


def test_the_picture_shows_what_was_corrected(zoo_command, trained_run, digit_files, tmp_path):
    picture = tmp_path / "why.svg"
    words = ["explain", str(trained_run), str(digit_files / "8.png"), "--out", str(picture), "--json"]
    found = json.loads(zoo_command(*words)[1])
    assert (found["set_to"], "set by hand" in picture.read_text()) == ({}, False)
    found = json.loads(zoo_command(*words, "--set", "lower_loop=0", "--set", "top_bar=0.5")[1])
    assert found["set_to"] == {"lower_loop": 0, "top_bar": 0.5}
    seen, drawn = found["answer"]["concepts"], picture.read_text()
    assert f"lower_loop  {seen['lower_loop']:.0%} \u2192 0%" in drawn
    assert f"top_bar  {seen['top_bar']:.0%} \u2192 50%" in drawn
    assert "\u25c6 set by hand: seen \u2192 set to" in drawn


def test_a_corrected_concept_is_drawn_however_little_it_says():
    from zoo.figures import contributions, plt

    figure, axes = plt.subplots()
    contributions(axes, [f"c{k}" for k in range(40)], [*range(39), 0.0], changed={39: "90% to 0%"}, shown=3)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c39  90% to 0%", "c38", "c37", "c36"]
    plt.close(figure)


def test_letters_that_no_font_has_are_named(tmp_path, monkeypatch):
    from zoo.explanation import Explanation, save_picture

    monkeypatch.setattr("zoo.lettering._installed", dict)
    names = {"\u5706\u5f62": 1.0, "a $wing$": -1.0, "\U0001f534": 0.5}
    answer = {"class": "\u9e1f", "probability": 0.9, "concepts": dict.fromkeys(names, 0.9)}
    found = Explanation(answer, None, "\u9e1f", names, "", dict.fromkeys(names, (0.5, 0.5)))
    assert save_picture(tmp_path / "why.svg", found, torch.zeros(1, 8, 8, dtype=torch.uint8)) == (
        "\u5706\u5f62\u9e1f\U0001f534"
    )
    drawn = (tmp_path / "why.svg").read_text()
    assert "<!-- \\u5706\\u5f62 -->" in drawn
    assert "<!-- [large red circle] -->" in drawn
    assert "<!-- contribution to \\u9e1f -->" in drawn


def test_no_correction_leaves_the_answer(trained_run):
    from zoo.explanation import corrections, explain
    from zoo.trained import open_trained

    trained = open_trained(str(trained_run))
    assert corrections([], trained.info) is None
    assert explain(trained, torch.zeros(1, 8, 8)).corrected is None


def test_effects_of_a_linear_head_are_its_contributions(trained_run):
    """Switching a concept of a linear head off takes away weight x activation."""
    from zoo.explanation import effects

    model, image = zoo.load(str(trained_run)), torch.randn(1, 8, 8)
    output = model(image[None])
    torch.testing.assert_close(
        effects(model, model.backbone(image[None]), output), model.contributions(output)[0], atol=1e-5, rtol=0
    )


def test_a_model_that_reads_positions_marks_them_and_exports(zoo_command, digit_files, tmp_path, capsys):
    run = train(tmp_path / "runs", "model.pool=max", "backbone.widths=[8,16]", "trainer.max_epochs=1")
    capsys.readouterr()
    picture = tmp_path / "where.png"
    words = [str(run), str(digit_files / "8.png"), "--json", "--out", str(picture)]
    code, out, err = zoo_command("explain", *words)
    assert (code, err) == (0, [])
    found = json.loads(out)
    assert list(found["places"]) == list(found["contributions"])
    # two stages leave four positions a side of the eight pixels
    assert {value for place in found["places"].values() for value in place} <= {0.125, 0.375, 0.625, 0.875}
    assert picture.exists()
    assert zoo_command("export", str(run), "--out", str(tmp_path / "onnx"))[0] == 0


def test_marks_are_those_of_present_concepts_that_matter():
    from zoo.explanation import Explanation, marks

    seen = {"wing": 0.9, "bar": 0.2, "stem": 0.7, "loop": 0.8}
    speaks = {"wing": 0.1, "bar": 5.0, "stem": -3.0, "loop": 1.0}
    places = dict.fromkeys(seen, (0.5, 0.5)) | {"wing": (0.25, 0.5)}
    found = Explanation({"concepts": seen}, None, "bird", speaks, "", places)
    assert marks(found, most=2) == {(0.5, 0.5): ["stem", "loop"]}
    assert marks(found) == {(0.5, 0.5): ["stem", "loop"], (0.25, 0.5): ["wing"]}
    assert marks(Explanation({"concepts": seen}, None, "bird", speaks, "")) == {}


@pytest.mark.parametrize("name", ["cbm", "cem", "concept_split", "tf_tti"])
def test_every_kind_of_head_is_explained(name):
    """Also those whose contributions read the weights as they are, after an answer made in inference mode."""
    from zoo.explanation import explain
    from zoo.models.contract import Intervention

    model = zoo.create_model(name, data="digits").eval()
    info = SimpleNamespace(
        task="classification", class_names=list("0123456789"), concept_names=list(model.concept_names)
    )
    trained, size = SimpleNamespace(model=model, info=info), len(info.concept_names)
    for intervene in (None, Intervention(torch.arange(size) < 2, torch.ones(size))):
        found = explain(trained, torch.randn(1, 8, 8), intervene)
        assert list(found.contributions) == info.concept_names
        assert all(torch.isfinite(torch.tensor(list(found.contributions.values()))))
        assert bool(found.sent) == (name == "concept_split")


def test_what_left_the_device_is_told_in_words():
    from zoo.explanation import levels_sent, size_sent

    sent = {"bytes": "d8", "size": 1, "size_sparse": 1, "levels": {"stem": (1, 1), "loop": (0, 3), "wing": (2, 3)}}
    assert (size_sent(sent), levels_sent(sent, str.upper)) == (
        "1 byte (0xd8)",
        ["STEM 1/1", "WING 2/3", "0 for the other 1"],
    )
    nothing = sent | {"bytes": "0000", "size": 2, "levels": {"loop": (0, 3), "wing": (0, 3)}}
    assert size_sent(nothing) == "2 bytes (0x0000, 1 with absent concepts left out)"
    assert levels_sent(nothing) == ["0 for all 2"]
    assert levels_sent({"levels": {"stem": (1, 1)}}) == ["stem 1/1"]


def test_mistakes_are_told_together(zoo_command, trained_run, digit_files):
    words = ["--set", "lower_lop=0", "--set", "top_bar=7", "--set", "top_bar"]
    words += ["--set", "lower_loop=0", "--set", "lower_loop=1"]
    code, _, err = zoo_command("explain", str(trained_run), str(digit_files / "8.png"), *words)
    assert (code, len(err)) == (2, 4)
    assert err[3] == "error: --set lower_loop=1: lower_loop is set twice: say it once"
    assert "did you mean lower_loop" in err[0]
    assert "from 0 (absent) to 1 (present)" in err[1]


def test_picture_that_cannot_be_written(zoo_command, trained_run, digit_files, tmp_path):
    for name in ("no/folder/why.png", "why.docx"):
        code, _, err = zoo_command(
            "explain", str(trained_run), str(digit_files / "8.png"), "--out", str(tmp_path / name)
        )
        assert (code, len(err)) == (2, 1)
    assert list(tmp_path.iterdir()) == []
    code, _, err = zoo_command("explain", str(trained_run), str(digit_files / "8.png"), "--out", "")
    assert (code, len(err)) == (2, 1)


def test_a_model_without_concepts_says_where_it_read(zoo_command, digit_files, tmp_path, capsys):
    words = ("model=vib", "backbone.widths=[16,32]", "trainer.max_epochs=4", "task.lr=0.01")
    run, picture, image = str(train(tmp_path, *words)), tmp_path / "where.svg", str(digit_files / "8.png")
    capsys.readouterr()
    code, out, err = zoo_command("explain", run, image, "--json", "--out", str(picture))
    assert (code, err) == (0, [])
    found = json.loads(out)
    assert {"image": image, **found["answer"]} == json.loads(zoo_command("predict", run, image, "--json")[1])[0]
    assert (found["occlusion"]["patch"], found["occlusion"]["stride"]) == ([2, 2], [1, 1])
    drops = torch.tensor(found["occlusion"]["drops"])
    assert (drops.shape, found["answer"]["class"]) == ((7, 7), "8")
    assert "points of probability lost" in picture.read_text()
    out = zoo_command("explain", run, image, "--out", str(picture))[1]
    left = found["answer"]["probability"] - drops.max().item()
    assert out.startswith(f"8 ({found['answer']['probability']:.1%})\nread most from the ")
    assert float(out.partition("without it ")[2].partition("%")[0]) == pytest.approx(100 * left, abs=0.11)


@pytest.mark.parametrize(("mean", "grey"), [(0.5, 0.0), (0.0, 0.25)])
def test_what_hides_a_place_is_the_mean(mean, grey):
    """0 in a normalised image, otherwise the image's own mean."""
    from zoo.explanation import explain_reading

    seen = []

    class Model(torch.nn.Linear):
        def forward(self, images):
            seen.append(images)
            return Output(torch.zeros(len(images), 2))

    info = SimpleNamespace(
        task="classification", class_names=["a", "b"], concept_names=[], transform=SimpleNamespace(mean=(mean,))
    )
    image = torch.zeros(1, 8, 8)
    image[:, :4, :4] = 1
    explain_reading(SimpleNamespace(model=Model(1, 1), info=info), image)
    hidden = next(images for images in seen if len(images) > 1)
    assert hidden[0, 0, :2, :2].unique().tolist() == [grey]
    assert hidden[0, 0, 2:].equal(image[0, 2:])


@pytest.mark.parametrize(
    ("target", "task", "line"),
    [
        (
            "zoo.models.concept.cirevl.CIReVL",
            "classification",
            "it finds images and has no classes: python -m zoo search",
        ),
        ("zoo.models.information.vib.VIB", "regression", "neither concepts nor classes: python -m zoo predict shows"),
    ],
)
def test_models_without_concepts_and_classes_say_what_they_offer(target, task, line):
    from zoo.errors import UserError
    from zoo.explanation import check_explainable

    info = SimpleNamespace(name="m", data="d", concept_names=[], task=task, recipe={"target": target})
    with pytest.raises(UserError, match=line):
        check_explainable(info)
