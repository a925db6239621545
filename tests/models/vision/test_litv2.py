"""LITv2: oracles of HiLo and of token merging, the published sizes, training and export."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torchvision.ops import deform_conv2d

from tests.models.vision.exports import check_onnx, check_program
from zoo.models.vision.hilo import HiLo
from zoo.models.vision.litv2 import LITv2, LITv2Backbone
from zoo.models.vision.token_merging import DeformableTokenMerging, deformable_conv


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def tiny(**arguments) -> LITv2:
    torch.manual_seed(0)
    return LITv2(**{"num_outputs": 5, "in_channels": 1, "image_size": (32, 32), "variant": "tiny"} | arguments)


# the published sizes


@pytest.mark.parametrize(
    ("variant", "alpha", "parameters"),
    [
        ("small", 0.9, 27_844_000),
        ("medium", 0.9, 48_830_368),
        ("base", 0.9, 86_520_704),
        ("small", 0.0, 28_089_760),
        ("small", 0.2, 27_844_000),
        ("small", 0.4, 27_696_544),
        ("small", 0.5, 27_647_392),
        ("small", 0.7, 27_696_544),
        ("small", 1.0, 28_089_760),
    ],
)
def test_variants_have_the_published_parameters(variant, alpha, parameters):
    with torch.device("meta"):
        model = LITv2(num_outputs=1000, variant=variant, alpha=alpha)
    assert count(model) == parameters


@pytest.mark.parametrize(
    ("heads", "alpha", "lo"), [(12, 0.9, 10), (16, 0.9, 14), (4, 0.9, 3), (12, 0.7, 8), (100, 0.29, 29)]
)
def test_lo_heads_are_the_share_rounded_down(heads, alpha, lo):
    assert HiLo(heads * 2, num_heads=heads, alpha=alpha).lo_heads == lo


def test_macs_by_hand():
    assert HiLo(384, num_heads=12, alpha=0.5).macs(14, 14) == 83_467_776
    assert HiLo(32, num_heads=4).macs(7, 5) == HiLo(32, num_heads=4).macs(8, 6)


# HiLo


def test_a_window_of_one_is_multi_head_attention():
    module = HiLo(24, num_heads=3, window_size=1)
    plain = nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat([module.l_q.weight, module.l_kv.weight]))
        plain.in_proj_bias.copy_(torch.cat([module.l_q.bias, module.l_kv.bias]))
        plain.out_proj.load_state_dict(module.l_proj.state_dict())
        x = torch.randn(2, 3, 5, 24)
        tokens = x.flatten(1, 2)
        torch.testing.assert_close(module(x).flatten(1, 2), plain(tokens, tokens, tokens)[0])


def test_hi_heads_see_their_window_alone():
    module = HiLo(8, num_heads=2, alpha=0.0)
    x = torch.randn(1, 6, 4, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x)[0, 3, 2].sum(), x)
    seen = (gradient[0].abs().sum(-1) > 0).nonzero().tolist()
    assert seen == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_lo_heads_answer_from_a_quarter_of_the_positions(monkeypatch):
    keys = []
    import zoo.models.vision.hilo as module

    attend = module.attention
    monkeypatch.setattr(module, "attention", lambda q, k, v, **rest: keys.append(k.shape[2]) or attend(q, k, v, **rest))
    HiLo(8, num_heads=2, alpha=1.0)(torch.randn(2, 6, 8, 8))
    assert keys == [12]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("size", [(5, 7), (4, 3), (1, 1)])
def test_maps_that_windows_do_not_fill_are_padded_with_zeros(alpha, size):
    module = HiLo(16, num_heads=4, alpha=alpha)
    x = torch.randn(2, *size, 16)
    below, right = size[0] % 2, size[1] % 2
    padded = F.pad(x, (0, 0, 0, right, 0, below))
    torch.testing.assert_close(module(x), module(padded)[:, : size[0], : size[1]])


def test_gradients_of_hilo_and_merging():
    torch.manual_seed(0)
    hilo = HiLo(8, num_heads=2, alpha=0.5).double()
    merge = DeformableTokenMerging(2).double().eval()
    with torch.no_grad():
        merge.offset.bias.uniform_(0.2, 0.4)
    assert torch.autograd.gradcheck(hilo, torch.randn(1, 3, 4, 8, dtype=torch.double, requires_grad=True))
    x = torch.randn(1, 2, 4, 4, dtype=torch.double, requires_grad=True)
    offset = (0.3 + 0.1 * torch.randn(1, 8, 2, 2, dtype=torch.double)).requires_grad_()
    ours = torch.autograd.grad(deformable_conv(x, offset, merge.weight).square().sum(), (x, offset))
    theirs = torch.autograd.grad(deform_conv2d(x, offset, merge.weight, stride=2).square().sum(), (x, offset))
    for mine, its in zip(ours, theirs):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5)


# token merging


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (2, 3)])
def test_deformable_conv_is_torchvisions(size):
    x, weight, bias = torch.randn(2, 3, *size), torch.randn(4, 3, 2, 2), torch.randn(4)
    offset = 3 * torch.randn(2, 8, size[0] // 2, size[1] // 2)
    expected = deform_conv2d(x, offset, weight, bias, stride=2)
    torch.testing.assert_close(deformable_conv(x, offset, weight, bias), expected, rtol=1e-4, atol=1e-4)


def test_zero_offsets_make_an_ordinary_convolution():
    merge, x = DeformableTokenMerging(3).eval(), torch.randn(2, 6, 8, 3)
    plain = F.conv2d(x.permute(0, 3, 1, 2), merge.weight, merge.bias, stride=2)
    torch.testing.assert_close(merge(x).permute(0, 3, 1, 2), F.gelu(merge.norm(plain)), rtol=1e-4, atol=1e-5)


# the network


def test_images_and_features_give_the_same():
    model, images = tiny().eval(), torch.randn(3, 1, 32, 32)
    features = model.backbone(images)
    output = model(images)
    assert torch.equal(output.prediction, model.forward_features(features).prediction)
    assert features.shape == (3, model.backbone.feature_dim)
    assert model.backbone.feature_map(images).shape == (3, 256, 1, 1)
    torch.testing.assert_close(model.backbone.feature_map(images).mean((2, 3)), features)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (37, 50), (64, 48)])
def test_any_image_size_will_do(size):
    model = tiny(image_size=size).eval()
    assert model(torch.randn(2, 1, *size)).prediction.shape == (2, 5)


def test_it_serves_as_a_frozen_backbone():
    trunk = LITv2Backbone(in_channels=1, image_size=(32, 32), variant="tiny", frozen=True)
    trunk.train()
    assert not any(module.training for module in trunk.modules())
    assert not any(p.requires_grad for p in trunk.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"variant": "huge"}, "unknown variant 'huge': choose one of tiny, small"),
        ({"image_size": (7, 7)}, "7x7 are too small: take 8x8 or more"),
        ({"image_size": (28, 28), "patch_size": 4}, "take 32x32 or more"),
        ({"depths": (1, 1)}, "equally many stages"),
        ({"num_heads": (1, 2, 3, 8)}, "3 heads do not divide 128"),
        ({"alpha": 1.5}, "between 0 and 1"),
    ],
)
def test_impossible_settings_are_one_line(arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        tiny(**arguments)
    assert "\n" not in str(caught.value)


def test_regression_has_its_own_loss():
    model = tiny(num_outputs=1, task="regression")
    images = torch.randn(4, 1, 32, 32)
    batch = {"image": images, "label": torch.randn(4, 1)}
    loss = model.loss(model(images), batch)["loss"]
    assert loss == F.mse_loss(model(images).prediction, batch["label"])


@pytest.mark.slow
def test_handwritten_digits_are_learned_in_seconds():
    pixels, labels = load_digits(return_X_y=True)
    images = F.interpolate(torch.tensor(pixels).float().view(-1, 1, 8, 8) / 8 - 1, 32, mode="bilinear")
    label = torch.tensor(labels)
    model = tiny(num_outputs=10)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for rows in torch.randperm(1400).repeat(2).split(64):
        loss = model.loss(model(images[rows]), {"label": label[rows]})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (model.eval()(images[1400:]).prediction.argmax(1) == label[1400:]).float().mean()
    assert accuracy > 0.6


# export


def test_exported_program_takes_any_batch_size():
    check_program(tiny().eval(), torch.randn(5, 1, 32, 32))


@pytest.mark.slow
def test_onnx_agrees(tmp_path: Path):
    model = tiny().eval()
    with torch.no_grad():
        for stage in model.backbone.stages[:-1]:
            stage.merge.offset.bias.uniform_(-1, 1)
    check_onnx(model, torch.randn(5, 1, 32, 32), tmp_path)
