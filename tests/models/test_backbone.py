"""Backbones: shapes, freezing, the weights' key, and that a small one learns the digits."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from zoo.data.contract import Preprocessing
from zoo.models.backbone import MLP, Backbone, ConvNet, Identity
from zoo.models.clip_backbone import Clip
from zoo.models.timm_backbone import Timm


def small(kind: str) -> Backbone:
    return {
        "convnet": lambda: ConvNet(in_channels=3, widths=(8, 16)),
        "mlp": lambda: MLP(in_channels=3, image_size=(16, 16), hidden=(12,)),
        "identity": lambda: Identity(in_channels=3, image_size=(16, 16)),
        "resnet": lambda: Timm(name="test_resnet", in_channels=3, image_size=(16, 16)),
        "vit": lambda: Timm(name="test_vit", in_channels=3, image_size=(32, 16)),
        "efficientnet": lambda: Timm(name="test_efficientnet", in_channels=3, image_size=(16, 16)),
    }[kind]()


@pytest.mark.parametrize("kind", ["convnet", "mlp", "identity", "resnet", "vit", "efficientnet"])
def test_shapes_and_weights_key(kind):
    torch.manual_seed(0)
    backbone = small(kind).eval()
    images = torch.rand(2, 3, *((32, 16) if kind == "vit" else (16, 16)))
    assert backbone(images).shape == (2, backbone.feature_dim)
    feature_map = backbone.feature_map(images)
    assert feature_map.shape[:2] == (2, backbone.feature_channels)
    if kind == "vit":
        assert feature_map.shape[2:] == (2, 1)
    key = backbone.weights_key()
    assert key == backbone.weights_key()
    for value in list(backbone.parameters())[:1]:
        with torch.no_grad():
            value.view(-1)[0] += 1
        assert backbone.weights_key() != key


def test_frozen_stays_in_evaluation_mode_and_learns_nothing():
    backbone = ConvNet(in_channels=1, widths=(4,), frozen=True)
    model = nn.Sequential(backbone, nn.Linear(4, 2)).train()
    assert not backbone.training
    assert not any(module.training for module in backbone.modules())
    images = torch.rand(8, 1, 8, 8)
    before = backbone.weights_key()
    assert not backbone(images).requires_grad
    model(images).sum().backward()
    assert backbone.weights_key() == before
    assert all(value.grad is None for value in backbone.parameters())


@pytest.mark.parametrize("side", [1, 3, 8, 65])
def test_convnet_takes_any_size(side):
    assert ConvNet(in_channels=1, widths=(4, 8, 8)).eval()(torch.rand(2, 1, side, side)).shape == (2, 8)


def test_table_rows():
    rows = torch.rand(4, 7)
    assert torch.equal(Identity(in_channels=7)(rows), rows)
    assert MLP(in_channels=7, hidden=(5,))(rows).shape == (4, 5)
    with pytest.raises(ValueError, match="backbone=mlp"):
        ConvNet(in_channels=7)(rows)


def test_weights_key_sees_the_activation():
    torch.manual_seed(0)
    one = MLP(in_channels=3, hidden=(4,), activation="ReLU")
    other = MLP(in_channels=3, hidden=(4,), activation="GELU")
    other.load_state_dict(one.state_dict())
    assert one.weights_key() != other.weights_key()


def test_timm_weights_from_a_file(tmp_path):
    trained = Timm(name="test_resnet", in_channels=3, image_size=(16, 16)).eval()
    state = {f"module.{key}": value for key, value in trained.net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    loaded = Timm(name="test_resnet", in_channels=1, image_size=(8, 8), checkpoint_path=str(tmp_path / "w.pth")).eval()
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(loaded(images), trained(images))
    assert Preprocessing.from_dict(loaded.preprocessing).channels == 3
    assert Timm(name="test_resnet").load_state_dict(loaded.state_dict()).missing_keys == []
    with pytest.raises(ValueError, match="lacks or misfits"):
        Timm(name="test_vit", checkpoint_path=str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, "resnet18"),
        ({"name": "resnet18.a1_in2k"}, "resnet18.a1_in1k"),
        ({"name": "local-dir:nowhere"}, "config.json"),
        ({"name": "test_resnet", "checkpoint_path": "nowhere.pth"}, "nowhere.pth"),
    ],
)
def test_timm_mistakes_name_what_is_valid(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Timm(**arguments)
    assert "\n" not in str(error.value)


def test_clip(tmp_path):
    torch.manual_seed(0)
    clip = Clip(name="ViT-S-32-alt", frozen=True)
    images = torch.rand(1, 3, 224, 224)
    assert clip(images).shape == (1, clip.feature_dim)
    assert clip.feature_map(images).shape == (1, clip.feature_channels, 7, 7)
    texts = clip.encode_text(["a wing", "a bar", "a stem"])
    assert texts.shape == (3, clip.feature_dim)
    assert clip.preprocessing["image_size"] == (224, 224)
    torch.save(clip.clip.state_dict(), tmp_path / "clip.pt")
    loaded = Clip(name="ViT-S-32-alt", pretrained=str(tmp_path / "clip.pt"), frozen=True)
    assert torch.equal(loaded(images), clip(images))
    assert Preprocessing.from_dict(loaded.preprocessing).image_size == (224, 224)


@pytest.mark.parametrize("name", ["ViT-S-32-alt", "shapes_clip"])
def test_a_clip_is_built_where_nothing_is_computed(name, caplog):
    with torch.device("meta"):
        clip = Clip(name=name)
        assert clip(torch.empty(2, 3, *clip.preprocessing["image_size"])).shape == (2, clip.feature_dim)
    assert not caplog.records


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"name": "ViT-B32"}, "ViT-B-32"), ({"name": "ViT-B-32", "pretrained": "opnai"}, "openai")],
)
def test_clip_mistakes_name_what_is_valid(arguments, message):
    with pytest.raises(ValueError, match=message):
        Clip(**arguments)


def test_convnet_learns_the_digits():
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    train, test = order[:1400], order[1400:]
    backbone = ConvNet(in_channels=1, widths=(16, 32, 64))
    model = nn.Sequential(backbone, nn.Linear(64, 10))
    epochs, batch = 8, 64
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=epochs * (1400 // batch + 1))
    for _ in range(epochs):
        for rows in train[torch.randperm(1400)].split(batch):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    accuracy = (model.eval()(images[test]).argmax(1) == labels[test]).float().mean()
    assert accuracy > 0.97
