"""HeBA: the block, the scaled gradient, whole CLIP, what training compares."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.golden.cases import Case, adapter
from tests.models.concept.tiny_clip import TinyClip
from zoo.models.concept.clip_tuning import class_prompts
from zoo.models.concept.heba import HeBA, HeBAAdapter, HeBABlock
from zoo.tasks.supervised import select_stage

CLASSES = ["red circle", "blue square", "green circle", "red square", "blue circle", "green square"]


def build(**arguments) -> HeBA:
    torch.manual_seed(0)
    return HeBA(backbone=TinyClip(), class_names=CLASSES, **arguments)


def weighted(y):
    return (y * torch.linspace(0.5, 1.5, y.shape[-1])).sum()


@adapter("heba", "HeBABlock")
def heba_block(case: Case):
    a, x = case.arguments, case.input["x"].requires_grad_()
    block = HeBABlock(width=a["input_dim"], reduction=a["reduction"], visual=a["is_visual"])
    block.load_state_dict(case.param)
    y = block(x.transpose(0, 1)).transpose(0, 1)
    variables = {"grad/x": x} | {f"grad/{name}": p for name, p in block.named_parameters()}
    return {"output/y": y} | case.gradients(weighted(y), variables)


@adapter("heba", "HeBAGradScale")
def heba_grad_scale(case: Case):
    a, result = case.arguments, {}
    for prefix, tail in (("", ""), ("text.", "_text")):
        x = case.input[f"x{tail}"].requires_grad_()
        own = {k.removeprefix(prefix): v for k, v in case.param.items() if k.startswith("text.") == bool(prefix)}
        module = HeBAAdapter(width=a["input_dim"], reduction=a["reduction"], visual=not prefix, scale=a["scale"])
        module.block.load_state_dict(own)
        y = module.train()(x.transpose(0, 1)).transpose(0, 1)
        variables = {f"grad/x{tail}": x} | {f"grad/{prefix}{name}": p for name, p in module.block.named_parameters()}
        result |= {f"output/y{tail}": y} | case.gradients(y.sum(), variables)
    return result


@adapter("heba", "HeBACLIP", repeats=("n_prompts_per_class",))
def heba_clip(case: Case):
    a, (image, prompts) = case.arguments, (case.input["image"], case.input["prompts"])
    clip = TinyClip(
        embed_dim=a["embed_dim"],
        image_size=a["image_resolution"],
        patch=a["vision_patch_size"],
        vision=(a["vision_width"], a["vision_layers"], a["vision_heads"]),
        text=(a["transformer_width"], a["transformer_layers"], a["transformer_heads"]),
        context=a["context_length"],
        vocabulary=a["vocab_size"],
    )
    settings = {"first_layer": a["adapter_start"], "last_layer": a["adapter_end"], "scale": a["scale_base"]}
    model = HeBA(backbone=clip, class_names=["a"] * len(prompts), reduction=a["reduction"], **settings).eval()
    state = HeBA.convert_state(case.param)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"tokens", "backbone.clip.attn_mask"}
    # the authors build adapters for layers that a tower may not have
    assert all(key.startswith("adapters.") for key in unexpected)
    model.tokens = prompts
    output = model(image)
    features, text = F.normalize(output.latent, dim=-1), model.class_features()
    for module in model.modules():
        if isinstance(module, HeBAAdapter):
            module.scale = 0.0
    return {
        "output/image_features": features,
        "output/text_features": text,
        "output/logits": output.prediction,
        "output/image_features_unadapted": F.normalize(model.backbone(image), dim=-1),
    }


def test_a_scale_of_zero_is_the_frozen_clip_exactly():
    model, images = build(scale=0.0).eval(), torch.randn(2, 3, 24, 24)
    plain = copy.deepcopy(model.backbone)
    for module in plain.modules():
        module._forward_hooks.clear()
    assert torch.equal(model.backbone(images), plain(images))


@pytest.mark.parametrize("visual", [True, False])
def test_parameters_learn_as_if_the_scale_were_one_and_the_input_path_is_scaled(visual):
    x, upstream = torch.randn(2, 10, 8).double(), torch.randn(2, 10, 8).double()
    grads, through = {}, {}
    for scale in (1.0, 0.05):
        torch.manual_seed(0)
        module = HeBAAdapter(width=8, reduction=4, visual=visual, scale=scale).double().train()
        leaf = x.clone().requires_grad_()
        module(leaf).backward(upstream)
        grads[scale] = [p.grad for p in module.parameters()]
        through[scale] = leaf.grad - upstream
    torch.testing.assert_close(grads[0.05], grads[1.0])
    torch.testing.assert_close(through[0.05], 0.05 * through[1.0])


def test_evaluation_computes_what_training_computes():
    module, x = HeBAAdapter(width=8, reduction=4, visual=True, scale=0.3), torch.randn(2, 10, 8)
    torch.testing.assert_close(module.eval()(x), module.train()(x))
    assert torch.equal(module(x)[:, 0], x[:, 0])


def test_a_centre_kernel_is_no_middle_layer():
    block, x = HeBABlock(width=8, visual=True), torch.randn(2, 9, 8)
    block.mid.weight.data.zero_()[:, 0, 1, 1] = 1
    plain = block.norm(x + F.gelu(x @ block.down.weight[..., 0, 0].mT) @ block.up.weight[..., 0, 0].mT)
    torch.testing.assert_close(block(x), plain)
    with pytest.raises(ValueError, match="no square grid"):
        block(torch.randn(2, 8, 8))


def test_a_class_token_that_sees_no_patch_does_not_see_the_first_layers_adapters():
    model, x = build(scale=0.5).eval(), torch.randn(2, 10, 64)
    block = model.backbone.clip.visual.transformer.resblocks[0]
    alone = torch.zeros(10, 10)
    alone[0, 1:] = -torch.inf
    adapted = block(x, attn_mask=alone)
    for module in model.modules():
        if isinstance(module, HeBAAdapter):
            module.scale = 0.0
    frozen = block(x, attn_mask=alone)
    torch.testing.assert_close(adapted[:, 0], frozen[:, 0])
    assert (adapted[:, 1:] - frozen[:, 1:]).abs().amax(-1).min() > 1e-3


def test_only_adapters_learn_in_both_towers():
    model = build()
    select_stage(model, model.stages()[0])
    batch = {"image": torch.randn(8, 3, 24, 24), "label": torch.arange(8) % 6}
    model.loss(model.forward_batch(batch), batch)["loss"].backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {name for name, _ in model.named_parameters() if name.startswith("adapters.")}


def test_few_steps_lower_the_loss_and_evaluation_forgets_old_class_features():
    model = build(scale=0.3, boost_share=0.0)
    select_stage(model, model.stages()[0])
    batch = {"image": torch.randn(6, 3, 24, 24), "label": torch.arange(6)}
    before = model.eval()(batch["image"])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    for _ in range(15):
        select_stage(model, model.stages()[0])
        optimizer.zero_grad()
        model.loss(model.forward_batch(batch), batch)["loss"].backward()
        optimizer.step()
    after = model.eval()(batch["image"])
    assert model.loss(after, batch)["loss"] < 0.8 * model.loss(before, batch)["loss"]


def test_of_many_classes_a_part_is_compared():
    model = build(negatives=1).train()
    labels = torch.tensor([4, 1, 4])
    batch = {"image": torch.randn(3, 3, 24, 24), "label": labels}
    output = model.forward_batch(batch)
    classes = output.extras["classes"]
    assert len(classes) == 4
    assert {1, 4} <= set(classes.tolist())
    assert torch.isfinite(output.prediction).sum(1).tolist() == [4] * 3
    by_hand = F.cross_entropy(
        output.prediction[:, classes], torch.tensor([classes.tolist().index(y) for y in labels]), label_smoothing=0.1
    )
    torch.testing.assert_close(model.loss(output, batch)["loss"], by_hand)


def test_images_and_features_give_the_same_and_a_reload_drops_what_was_kept():
    model, images = build().eval(), torch.randn(2, 3, 24, 24)
    output = model(images)
    assert torch.equal(model.forward_features(model.backbone(images)).prediction, output.prediction)
    other = build()
    nn.init.normal_(other.adapters["text"]["1"]["mlp"].block.up.weight)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model(images).prediction, other.eval()(images).prediction)


def test_prompts_are_padded_with_the_first_and_averaged():
    assert class_prompts(["x"], "{}", {"x": ["p", "q"]}) == [["x, p", "x, q"]]
    model = build(descriptions={"red circle": ["with edges"], "blue square": ["with edges", "red"]}).eval()
    assert model.tokens.shape[:2] == (6, 2)
    assert torch.equal(model.tokens[0, 0], model.tokens[0, 1])
    torch.testing.assert_close(model.class_features().norm(dim=-1), torch.ones(6))
    with pytest.raises(ValueError, match="which is no class"):
        build(descriptions={"red dog": ["with edges"]})


def test_wrong_layers_and_backbones_are_refused():
    with pytest.raises(ValueError, match="choose no layer"):
        build(first_layer=3)
    with pytest.raises(ValueError, match="choose one"):
        HeBA(backbone=nn.Identity(), class_names=CLASSES)
    with pytest.raises(ValueError, match="no place for the class"):
        build(template="a photo")


def test_the_computed_parameter_count_of_vit_b_16():
    def count(widths, visual):
        return sum(p.numel() for width in widths for p in HeBABlock(width=width, visual=visual).parameters())

    with torch.device("meta"):
        assert 12 * (count((768, 3072), True) + count((512, 2048), False)) == 87158016
