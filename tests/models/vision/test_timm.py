"""timm's networks as classifiers: names, weights, heads, export."""

import logging
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tests.models.vision.exports import check_onnx, check_program
from zoo.models.vision.timm import Timm


def small(name: str = "resnet10t", **arguments) -> Timm:
    torch.manual_seed(0)
    return Timm(**{"name": name, "num_outputs": 5, "in_channels": 3, "image_size": (32, 32)} | arguments)


@pytest.mark.parametrize(
    "name",
    ["resnet10t.c3_in1k", "convnext_atto", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "levit_128s"],
)
@pytest.mark.parametrize("size", [(64, 64), (32, 32)])
def test_prediction_is_that_of_the_network_itself(name, size):
    if name.startswith("levit"):
        size = (224, 224)
    model, images = small(name, image_size=size).eval(), torch.randn(2, 3, *size)
    with torch.no_grad():
        output = model(images)
        assert torch.equal(output.prediction, model.net(images))
        assert torch.equal(model.forward_features(output.latent).prediction, output.prediction)
    assert output.prediction.shape == (2, 5)


def test_grey_images_and_regression():
    model, images = small(in_channels=1, num_outputs=2, task="regression"), torch.randn(4, 1, 32, 32)
    label = torch.randn(4, 2)
    output = model(images)
    loss = model.loss(output, {"label": label})["loss"]
    assert loss == nn.functional.mse_loss(output.prediction, label)


def test_it_learns():
    model, images = small(), torch.randn(16, 3, 32, 32)
    batch = {"image": images, "label": torch.arange(16) % 5}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        losses.append(model.loss(model(images), batch)["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_of_weights_for_the_same_classes_is_taken_whole(tmp_path: Path, suffix):
    network = timm.create_model("resnet10t", num_classes=5).eval()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    model, images = small(checkpoint_path=str(path)).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(images).prediction, network(images))
    assert model.preprocessing is not None
    assert model.preprocessing["image_size"] == (32, 32)
    assert model.fitted_arguments() == {"pretrained": False, "checkpoint_path": None}


def test_a_classifier_for_other_classes_is_rebuilt_and_said_so(tmp_path: Path, caplog):
    network = timm.create_model("resnet10t", num_classes=9)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    with caplog.at_level(logging.WARNING):
        model = small(checkpoint_path=str(tmp_path / "weights.safetensors"))
    assert "classifier is rebuilt" in caplog.text
    assert torch.equal(model.net.layer1[0].conv1.weight, network.layer1[0].conv1.weight)
    assert model.net.fc.weight.shape[0] == 5


def test_weights_of_another_network_are_refused(tmp_path: Path):
    save_file(timm.create_model("convnext_atto").state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"lacks or misfits \d+ of \d+ tensors: conv1"):
        small(checkpoint_path=str(tmp_path / "weights.safetensors"))


def test_nothing_is_fetched_to_check_shapes(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("fetched")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    with torch.device("meta"):
        model = small(pretrained=True)
        assert model(torch.empty(2, 3, 32, 32)).prediction.shape == (2, 5)


def test_weights_out_of_reach_are_one_line(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network\nand more lines")

    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    with pytest.raises(ValueError, match="no network") as caught:
        small(pretrained=True)
    assert "\n" not in str(caught.value)
    assert "checkpoint_path" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnt18"}, "unknown network of timm 'resnt18': did you mean resnet18"),
        ({"name": "resnet18.b1_in1k"}, r"resnet18 has no weights 'b1_in1k': did you mean resnet18\.a1_in1k"),
        ({"name": "local-dir:/nowhere"}, "holds no config.json"),
        ({"checkpoint_path": "nowhere.pth"}, "no file nowhere.pth"),
    ],
)
def test_impossible_settings_are_one_line(arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        small(**arguments)
    assert "\n" not in str(caught.value)


def test_exported_program_takes_any_batch_size():
    check_program(small().eval(), torch.randn(5, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_onnx_agrees(tmp_path: Path, name):
    check_onnx(small(name).eval(), torch.randn(5, 3, 32, 32), tmp_path)
