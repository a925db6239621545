"""Upstream checkpoints: tensors only, every key accounted for, shapes never forced, nothing executed."""

import json
import pickle
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import zoo.build
from zoo.artifact import load
from zoo.errors import UserError
from zoo.models.contract import Output, ZooModel
from zoo.upstream import match, read_state


class Tiny(ZooModel):
    """Two linear layers and a teacher; upstream calls the first one `fc1`."""

    training_only = ("teacher.",)

    def __init__(self, *, num_outputs: int = 2, width: int = 3):
        super().__init__()
        self.body, self.head = nn.Linear(4, width), nn.Linear(width, num_outputs)
        self.teacher = nn.Linear(4, num_outputs)

    def forward_features(self, features, intervene=None):
        return Output(self.head(self.body(features)))

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key.replace("fc1.", "body."): value for key, value in state.items()}


UPSTREAM = {
    "fc1.weight": torch.arange(12.0).reshape(3, 4),
    "fc1.bias": torch.ones(3),
    "head.weight": torch.full((2, 3), 2.0),
    "head.bias": torch.zeros(2),
}


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture
def convert(zoo_command, small_catalogue, monkeypatch, tmp_path):
    """Run `convert cbm FILE ...` with Tiny in place of the catalogue's model."""

    def create_model(name, **arguments):
        assert name == "cbm"
        for fact in ("class_names", "task", "in_channels", "image_size"):
            arguments.pop(fact)
        return zoo.build.assemble({"_target_": f"{__name__}.Tiny", **arguments}, None, None, {}).eval()

    monkeypatch.setattr(zoo.build, "create_model", create_model)

    def run(state, *words, name="up.pth"):
        file = tmp_path / name
        if state is not None:
            torch.save(state, file)
        return zoo_command("convert", "cbm", str(file), "--out", str(tmp_path / "out"), *words)

    return run


def test_round_trip(convert, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    code, out, err = convert(UPSTREAM, f"class_names={names}")
    assert (code, err) == (0, [])
    assert "4 tensors match" in out
    assert "preprocessing assumed" in out
    info = json.loads((tmp_path / "out" / "model.json").read_text())
    assert info["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert info["class_names"] == ["cat", "dog"]
    assert info["extra"] == {"converted_from": "up.pth"}
    model = load(str(tmp_path / "out"))
    assert torch.equal(model.body.weight, UPSTREAM["fc1.weight"])
    assert torch.equal(model.head.weight, UPSTREAM["head.weight"])


def test_keys_without_a_partner_are_named(convert, tmp_path):
    lacking = {key: value for key, value in UPSTREAM.items() if key != "head.bias"} | {"aux.weight": torch.ones(1)}
    code, out, err = convert(lacking)
    assert code == 2
    assert "only upstream: aux.weight\nonly in ours: head.bias\n" in out
    assert len(err) == 1
    assert "1 tensors of cbm would stay untrained, the first is head.bias" in err[0]
    assert not (tmp_path / "out").exists()
    assert convert(lacking, "--partial")[0] == 0


def test_every_shape_that_differs_has_its_line(convert, tmp_path):
    code, _, err = convert(UPSTREAM, "num_outputs=5")
    assert code == 2
    assert err == [
        "error: head.weight has shape (2, 3) upstream, the model as configured expects (5, 3)",
        "error: head.bias has shape (2,) upstream, the model as configured expects (5,)",
    ]
    assert not (tmp_path / "out").exists()


def test_nothing_fits(convert):
    code, _, err = convert({"x": torch.ones(1)})
    assert code == 2
    assert "no tensor fits cbm" in err[0]


def test_an_existing_model_is_kept(convert, tmp_path):
    assert convert(UPSTREAM)[0] == 0
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    code, _, err = convert({key: value + 1 for key, value in UPSTREAM.items()})
    assert code == 2
    assert "holds a model already" in err[0]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert convert(UPSTREAM, "--force")[0] == 0


def test_a_pickled_payload_is_refused_and_not_executed(convert, tmp_path):
    payload = tmp_path / "executed"
    code, out, err = convert({"state_dict": UPSTREAM, "extra": Payload(payload)})
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert "loading them would execute code" in err[0]
    assert not payload.exists()


@pytest.mark.parametrize("name", ["up.pth", "up.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", None], ids=["empty", "text", "truncated"])
def test_damaged_files(convert, tmp_path, name, content):
    if content is None:
        writer = save_file if name.endswith("safetensors") else torch.save
        writer(UPSTREAM, tmp_path / name)
        content = (tmp_path / name).read_bytes()[:-40]
    (tmp_path / name).write_bytes(content)
    code, _, err = convert(None, name=name)
    assert code == 2
    assert len(err) == 1
    assert "truncated" in err[0]


def test_a_plain_pickle_is_refused(convert, tmp_path):
    (tmp_path / "up.pth").write_bytes(pickle.dumps(Payload(tmp_path / "executed"), protocol=2))
    code, _, err = convert(None)
    assert (code, len(err)) == (2, 1)
    assert "loading them would execute code" in err[0]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["num_outputs"], "write KEY=VALUE"),
        (["width=[1"], "is no value"),
        (["class_names=absent.txt"], "there is no such file; it holds one name a line"),
        (["widht=3"], "model (Tiny) takes no widht"),
        (["in_channels=1"], "the preprocessing of 1-channel images is not known: give mean= and std="),
        (["in_channels=1", "mean=[0.5]", "std=0.5"], "std=0.5: expected 1 numbers"),
    ],
)
def test_bad_overrides(convert, words, line):
    code, _, err = convert(UPSTREAM, *words)
    assert (code, len(err)) == (2, 1)
    assert line in err[0]


def test_absent_file_and_unknown_model(convert, zoo_command):
    assert "there is no such file" in convert(None)[2][0]
    assert zoo_command("convert", "cbn", "x.pth")[2] == [
        "error: unknown model 'cbn': did you mean cbm? (python -m zoo list shows them)"
    ]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"net": state, "args": Namespace(lr=0.1), "best": np.float64(0.9), "count": np.int64(3)},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
)
def test_nested_checkpoints(tmp_path, wrap):
    torch.save(wrap(UPSTREAM), tmp_path / "a.pth")
    assert read_state(tmp_path / "a.pth").keys() == UPSTREAM.keys()


def test_no_tensors(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds no tensors by name"):
        read_state(tmp_path / "a.pth")


def test_a_missing_teacher_is_no_loss():
    found = match(Tiny(), UPSTREAM)
    assert not found.missing
    assert found.state.keys() == {"body.weight", "body.bias", "head.weight", "head.bias"}


@pytest.mark.slow
def test_a_real_model_with_the_facts_of_its_data(zoo_command, tmp_path):
    from zoo.build import create_model

    model = create_model("cbm", data="digits")
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, tmp_path / "a.pth"
    )
    out = tmp_path / "out"
    code, printed, err = zoo_command("convert", "cbm", str(tmp_path / "a.pth"), "data=digits", "--out", str(out))
    assert (code, err) == (0, [])
    assert "assumed" not in printed
    again = load(str(out))
    assert again.info.class_names == [str(digit) for digit in range(10)]
    assert len(again.info.preprocessing["mean"]) == 1
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(again(images).prediction, model(images).prediction)


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_disk_that_fills_leaves_the_old_model(convert, tmp_path):
    import resource

    assert convert(UPSTREAM)[0] == 0
    file = tmp_path / "out" / "model.safetensors"
    before = file.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    torch.save(UPSTREAM, tmp_path / "up.pth")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
    try:
        code, _, err = convert(None, "--force")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert code in (1, 2)
    assert len(err) == 1
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.json", "model.safetensors"]
