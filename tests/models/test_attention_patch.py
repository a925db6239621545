"""use_zoo_attention changes how a network computes, not what."""

import copy
import pickle

import open_clip
import pytest
import timm
import torch
from timm.layers import Attention
from torch import nn

from zoo.kernels.attention import attention
from zoo.models import attention_patch
from zoo.models.attention_patch import use_zoo_attention
from zoo.models.clip_backbone import Clip
from zoo.models.timm_backbone import Timm as TimmBackbone
from zoo.models.vision.timm import Timm as TimmClassifier

TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "num_heads": 2, "depth": 1, "num_classes": 5}

NETWORKS = {
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", **TINY),
    "vit with query norm": lambda: timm.create_model("vit_tiny_patch16_224", **TINY, qk_norm=True),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=16, window_size=2, depths=(2,), num_heads=(2,), embed_dim=16
    ),
    "swin v2": lambda: timm.create_model(
        "swinv2_tiny_window8_256", img_size=16, window_size=2, depths=(2,), num_heads=(2,), embed_dim=16
    ),
    "swin v2 cr": lambda: timm.create_model(
        "swinv2_cr_tiny_224", img_size=16, window_size=2, depths=(2,), num_heads=(2,), embed_dim=16
    ),
    "beit": lambda: timm.create_model("beit_base_patch16_224", **TINY),
    "eva": lambda: timm.create_model("eva02_tiny_patch14_224", **TINY),
    "vit with relative positions": lambda: timm.create_model("vit_relpos_base_patch16_224", **TINY),
    "vit with shared relative positions": lambda: timm.create_model("vit_srelpos_small_patch16_224", **TINY),
    "sam": lambda: timm.create_model("samvit_base_patch16", **TINY, global_attn_indexes=(), window_size=2),
    "vit with rotary positions": lambda: timm.create_model("vit_base_patch16_rope_224", **TINY),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_stay(name, monkeypatch):
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for parameter in network.parameters():  # nothing starts at zero, so that nothing is left out
        nn.init.normal_(parameter, std=0.2)
    for key, parameter in network.named_parameters():
        if "logit_scale" in key:  # on both sides of ln 100, where it ends
            nn.init.uniform_(parameter, 3, 6)
    ours = use_zoo_attention(copy.deepcopy(network))
    assert ours.state_dict().keys() == network.state_dict().keys()
    ours = pickle.loads(pickle.dumps(ours))
    images = torch.randn(2, 3, 16, 16)
    calls = []
    monkeypatch.setattr(attention_patch, "attention", lambda *x, **y: calls.append(1) or attention(*x, **y))
    want = network(images)
    assert not calls
    got = ours(images)
    assert calls
    torch.testing.assert_close(got, want)
    want.square().sum().backward()
    got.square().sum().backward()
    for (key, a), b in zip(network.named_parameters(), ours.parameters()):
        torch.testing.assert_close(b.grad, a.grad, atol=1e-4, rtol=1e-4, msg=key)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8, "head_width": 16}
    text = {"context_length": 12, "vocab_size": 100, "width": 64, "heads": 4, "layers": 1}
    return open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text).eval()


def test_both_towers_of_clip_stay(clip):
    ours = use_zoo_attention(copy.deepcopy(clip))
    images, words = torch.randn(2, 3, 32, 32), torch.randint(1, 99, (2, 12))
    torch.testing.assert_close(ours.encode_image(images), clip.encode_image(images), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.encode_text(words), clip.encode_text(words), atol=1e-5, rtol=1e-4)


def test_a_patched_network_compiles_exports_and_can_be_patched_again():
    network = use_zoo_attention(use_zoo_attention(NETWORKS["vit"]().eval()))
    images = torch.randn(1, 3, 16, 16)
    want = network(images)
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="aot_eager")(images), want)
    program = torch.export.export(network, (images,))
    assert not [node for node in program.graph.nodes if "zoo" in str(node.target)]
    torch.testing.assert_close(program.module()(images), want)


def test_dropout_on_attention_weights_stays_with_the_layer():
    network = timm.create_model("vit_tiny_patch16_224", **TINY, attn_drop_rate=0.5).train()
    ours = use_zoo_attention(copy.deepcopy(network))
    images = torch.randn(2, 3, 16, 16)
    torch.manual_seed(1)
    want = network(images)
    torch.manual_seed(1)
    torch.testing.assert_close(ours(images), want)


def test_dropout_of_packed_attention_stays_with_the_layer():
    layer = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True).train()
    ours, x = use_zoo_attention(copy.deepcopy(layer)), torch.randn(1, 3, 8)
    results = []
    for network in (layer, ours):
        torch.manual_seed(1)
        results.append(network(x, x, x, need_weights=False)[0])
    torch.testing.assert_close(*results)


def test_a_gate_stays():
    layer = Attention(32, 2, gated=True, qkv_bias=True)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(use_zoo_attention(copy.deepcopy(layer))(x), layer(x))


def test_weights_as_an_output_stay_with_the_layer():
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(1, 3, 8)
    want = layer(x, x, x)
    got = use_zoo_attention(layer)(x, x, x)
    torch.testing.assert_close(got, want)


def test_a_network_without_attention_is_refused():
    with pytest.raises(ValueError, match="Linear has no attention layer of a known kind"):
        use_zoo_attention(nn.Linear(1, 1))


def test_networks_of_the_zoo_use_it():
    for name, kind in {"vit_tiny_patch16_224": attention_patch.TimmAttention, "resnet10t": nn.Conv2d}.items():
        settings = {"name": name, "image_size": (32, 32)}
        for network in (TimmBackbone(**settings), TimmClassifier(**settings, num_outputs=3)):
            assert any(type(module) is kind for module in network.modules())
    clip = Clip(name="word_clip", words=["red", "square"], context=4)
    assert {type(layer.attn) for layer in clip.clip.transformer.resblocks} == {attention_patch.PackedAttention}
