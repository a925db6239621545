"""export: files that answer like the model on real images, in any order, and nothing where they do not."""

import json
import shutil

import pytest
import torch

import zoo
from tests.zoo.conftest import train
from zoo.export import onnx as onnx_format
from zoo.export.int8 import quantize_copy
from zoo.export.parity import Parity, agreement, compare, difference, failures
from zoo.export.parts import parts_of, run_parts


@pytest.fixture
def run(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "run")


@pytest.fixture(scope="session")
def exported(trained_run, tmp_path_factory):
    """The shared run's ONNX file."""
    from zoo.cli import main

    folder = tmp_path_factory.mktemp("exported") / "onnx"
    assert main(["export", str(trained_run), "--out", str(folder)]) == 0
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_onnx_answers_at_every_batch_size(exported, trained_run):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["prediction", "concepts"]
    model = zoo.load(str(trained_run))
    for size in (1, 2, 9):
        images = torch.randn(size, 1, 8, 8)
        prediction, concepts = session.run(None, {"images": images.numpy()})
        expected = model(images)
        torch.testing.assert_close(torch.from_numpy(prediction), expected.prediction, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.from_numpy(concepts), expected.concepts, atol=1e-5, rtol=0)


def test_names_and_preprocessing_lie_beside_and_inside(exported, trained_run):
    onnx = pytest.importorskip("onnx")
    info = json.loads((trained_run / "model.json").read_text())
    beside = json.loads((exported / "export.json").read_text())
    inside = {p.key: p.value for p in onnx.load(exported / "model.onnx").metadata_props}
    for name in ("class_names", "concept_names", "preprocessing"):
        assert beside[name] == info[name]
        assert json.loads(inside[name]) == info[name]
    assert beside["parts"]["model"] == {"inputs": {"images": [1, 8, 8]}, "outputs": ["prediction", "concepts"]}
    assert beside["parity"]["agreement"] == 1
    assert beside["parity"]["batch_sizes"] == [1, 32]


def test_files_tell_nothing_of_the_machine(exported):
    """No paths of source files and no traces."""
    assert b".py" not in (exported / "model.onnx").read_bytes()


@pytest.mark.slow
def test_order_of_exports_does_not_matter(zoo_command, run, tmp_path):
    orders = [("onnx", "pt2", "safetensors"), ("safetensors", "pt2", "onnx")]
    before = (run / "model.safetensors").read_bytes()
    found = []
    for number, order in enumerate(orders):
        for form in order:
            assert (
                zoo_command("export", str(run), "--format", form, "--out", str(tmp_path / f"{number}" / form))[0] == 0
            )
        found.append({form: contents(tmp_path / f"{number}" / form) for form in order})
    assert found[0] == found[1]
    assert (run / "model.safetensors").read_bytes() == before


def test_exporting_leaves_the_model_as_it_was(trained_run, tmp_path):
    from zoo.export.job import Job, export
    from zoo.trained import open_trained

    trained = open_trained(str(trained_run))
    trained.model.train()
    state = {name: value.clone() for name, value in trained.model.state_dict().items()}
    export(trained, Job("pt2", out=tmp_path / "out"))
    assert trained.model.training
    assert all(parameter.requires_grad for parameter in trained.model.parameters())
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, state[name])


def test_pt2_and_safetensors_open_again(zoo_command, run, trained_run):
    model, images = zoo.load(str(trained_run)), torch.randn(3, 1, 8, 8)
    for form in ("pt2", "safetensors"):
        code, out, err = zoo_command("export", str(run), "--format", form)
        assert (code, err) == (0, [])
        assert "same answer" in out
    program = torch.export.load(run / "export" / "pt2" / "model.pt2").module()
    assert torch.equal(program(images)[0], model(images).prediction)
    assert torch.equal(zoo.load(str(run / "export" / "safetensors"))(images).prediction, model(images).prediction)


def test_beyond_tolerance_nothing_is_written(zoo_command, run, monkeypatch):
    """A converter that gets one weight wrong is found out, whatever was there stays."""
    folder = run / "export" / "onnx"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_text("old")
    describe = onnx_format.describe

    def damage(proto, description):
        from onnx import numpy_helper

        weight = next(each for each in proto.graph.initializer if "head" in each.name and len(each.dims) == 2)
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, weight.name))
        describe(proto, description)

    monkeypatch.setattr(onnx_format, "describe", damage)
    code, out, err = zoo_command("export", str(run))
    assert (code, out, len(err)) == (4, "", 1)
    assert "prediction differs by" in err[0]
    assert contents(folder) == {"model.onnx": b"old"}
    assert [path.name for path in folder.parent.iterdir()] == ["onnx"]


def test_refusals(zoo_command, run, tmp_path, monkeypatch):
    code, _, err = zoo_command("export", str(run), "--out", str(run))
    assert (code, len(err)) == (2, 1)
    assert "would be overwritten" in err[0]
    (tmp_path / "file").write_text("")
    assert zoo_command("export", str(run), "--out", str(tmp_path / "file"))[0] == 2
    with monkeypatch.context() as patch:
        patch.setattr(
            "pathlib.Path.mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError(30, "Read-only file system"))
        )
        code, _, err = zoo_command("export", str(run), "--out", str(tmp_path / "new"))
    assert (code, len(err)) == (2, 1)
    assert "cannot be written (Read-only file system): give another folder with --out" in err[0]
    code, _, err = zoo_command("export", str(run), "--format", "pt2", "--int8")
    assert (code, len(err)) == (2, 1)
    assert "--format onnx" in err[0]
    code, _, err = zoo_command("export", str(run), "--format", "onxx")
    assert (code, len(err)) == (2, 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    code, _, err = zoo_command("export", str(run))
    assert code == 3
    assert err[0].endswith("pip install 'bottleneck-zoo[export]'")
    assert not (run / "export").exists()


def test_data_that_are_gone(zoo_command, run, tmp_path):
    """The check then falls back to other real images, and says so."""
    config = run / "config.yaml"
    text = config.read_text().replace("zoo.data.digits.DigitsDataModule", "zoo.data.arrays.ArraysDataModule")
    config.write_text(text.replace("data:\n", f"data:\n  root: {tmp_path / 'gone'}\n", 1))
    code, out, err = zoo_command("export", str(run), "--format", "pt2")
    assert (code, err) == (0, [])
    assert "scikit-learn's digits, the run's data being gone" in out
    code, _, err = zoo_command("export", str(run), "--int8")
    assert (code, len(err)) == (2, 1)


def test_int8_onnx(zoo_command, run):
    code, out, err = zoo_command("export", str(run), "--int8", "--json")
    assert (code, err) == (0, [])
    found = json.loads(out)
    assert found["parity"]["agreement"] >= 0.98
    assert found["bytes"][1] < 0.6 * found["bytes"][0]
    assert abs(found["accuracy"][0] - found["accuracy"][1]) < 0.02
    assert len(found["latency_ms"]) == 2
    code, _, err = zoo_command("export", str(run), "--int8", "--tolerance", "1.01", "--out", str(run / "other"))
    assert (code, len(err)) == (4, 1)
    assert not (run / "other").exists()


@pytest.fixture(scope="session")
def linear_run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("linear"), "backbone=mlp", "trainer.max_epochs=3", "task.lr=0.01")


def test_int8_linear_layers(zoo_command, linear_run, tmp_path):
    """A model of linear layers, in both formats that PyTorch runs; the smaller file opens with zoo.load."""
    run = shutil.copytree(linear_run, tmp_path / "run")
    for form in ("safetensors", "pt2"):
        code, out, err = zoo_command("export", str(run), "--format", form, "--int8", "--json")
        assert (code, err) == (0, [])
        found = json.loads(out)
        assert found["parity"]["agreement"] >= 0.98
        assert found["bytes"][1] < found["bytes"][0]
    images = torch.randn(4, 1, 8, 8)
    small = zoo.load(str(run / "export" / "safetensors-int8"))
    expected = quantize_copy(zoo.load(str(run)))
    assert torch.equal(small(images).prediction, expected(images).prediction)


@pytest.mark.slow
def test_a_split_model_becomes_head_and_tail(zoo_command, split_run, tmp_path):
    for words in (["--format", "onnx"], ["--format", "pt2"], ["--format", "onnx", "--int8", "--tolerance", "0.8"]):
        folder = tmp_path / "-".join(words)
        code, out, err = zoo_command("export", str(split_run), *words, "--out", str(folder), "--json")
        assert (code, err) == (0, [])
        assert {path.stem for path in folder.iterdir()} == {"export", "head", "tail"}
        found = json.loads(out)
        assert set(found["parity"]["max_abs"]) == {"code", "scale", "zero_point", "prediction"}
        assert found["parts"]["tail"]["outputs"] == ["prediction"]
    model, images = zoo.load(str(split_run)), torch.randn(3, 3, 32, 32)
    head, tail = (torch.export.load(tmp_path / "--format-pt2" / f"{part}.pt2").module() for part in ("head", "tail"))
    torch.testing.assert_close(tail(*head(images))[0], model(images).prediction)


def test_parts_and_parity_find_what_differs(trained_run):
    model, images = zoo.load(str(trained_run)), torch.randn(5, 1, 8, 8)
    parts = parts_of(model, images)
    values = run_parts(parts, images)
    assert list(values) == ["images", "prediction", "concepts"]

    def shifted(images):
        prediction, concepts = parts[0].module(images)
        return prediction + torch.eye(10)[0] * 100, concepts

    same, other = compare(parts, [parts[0].module], images), compare(parts, [shifted], images)
    assert same.agreement == 1
    assert failures(same, parts, tolerance=0) == []
    assert other.end_to_end == pytest.approx(100, rel=1e-4)
    assert [line.split()[0] for line in failures(other, parts, tolerance=1)] == ["prediction"]


def test_measures():
    one = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert difference(one, one + 0.5) == 0.5
    assert difference(one, one * float("nan")) == float("inf")
    assert difference(one, one[:1]) == float("inf")
    assert agreement(one, one.flip(1), task="classification") == 0
    assert agreement(one, one.mean(0).expand(2, 2), task="regression") == 0
    assert Parity().as_dict()["images"] == 0
