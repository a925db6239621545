"""APT: the module, an attention layer, CLIP."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.golden.cases import Case, adapter
from tests.models.concept.tiny_clip import TinyClip
from zoo.models.concept.apt import APT, ApproximatedPrompts, attach
from zoo.tasks.supervised import select_stage

CLASSES = ["red circle", "blue square", "green circle"]
KEYS = {"mm_tokens": "prompts", "mm.0.weight": "down.weight", "mm.1.weight": "up.weight", "scale": "scale"}


def load(module: ApproximatedPrompts, state, prefix=""):
    module.load_state_dict({ours: state[prefix + theirs] for theirs, ours in KEYS.items()})
    return module


@adapter("apt", "APTModule")
def apt_module(case: Case):
    a = case.arguments
    module = ApproximatedPrompts(width=a["dim"], prompts=a["n_prompts"], rank=a["rank"])
    h, z = (case.input[name].requires_grad_() for name in ("attn_out", "res"))
    start = load(module, case.param, "init.")(h, z).detach()
    y = load(module, case.param)(h, z)
    named = dict(module.named_parameters())
    variables = {"grad/attn_out": h, "grad/res": z} | {f"grad/{theirs}": named[ours] for theirs, ours in KEYS.items()}
    grads = case.gradients((y * torch.linspace(0.5, 1.5, y.shape[-1])).sum(), variables)
    return grads | {"output/y": y, "output/y_at_init": start}


@adapter("apt", "APTAttention")
def apt_attention(case: Case):
    a, x, p = case.arguments, case.input["x"], case.param
    attention = nn.MultiheadAttention(a["dim"], a["num_heads"], batch_first=True).eval()
    bias = p.get("qkv.bias", torch.zeros(3 * a["dim"]))
    state = {f"out_proj.{part}": p[f"proj.{part}"] for part in ("weight", "bias")}
    attention.load_state_dict(state | {"in_proj_weight": p["qkv.weight"], "in_proj_bias": bias})
    load(attach(attention, prompts=a["n_prompts"], rank=a["rank"]), p, "APT.")
    y, weights = attention(x, x, x, average_attn_weights=False)
    return {"output/y": y, "output/attn": weights}


def random_module() -> ApproximatedPrompts:
    module = ApproximatedPrompts(width=8, prompts=6, rank=2).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def test_without_prompts_only_the_scale_is_left():
    module, h, z = random_module(), torch.randn(2, 5, 8).double(), torch.randn(2, 5, 8).double()
    nn.init.zeros_(module.prompts)
    assert torch.equal(module(h, z), module.scale.exp() * h)


def test_the_order_of_prompts_does_not_matter_and_tokens_do_not_mix():
    module, h, z = random_module(), torch.randn(2, 5, 8).double(), torch.randn(2, 5, 8).double()
    before = module(h, z)
    changed = z.clone()
    changed[:, 3] = torch.randn(2, 8)
    after = module(h, changed)
    assert torch.equal(after[:, [0, 1, 2, 4]], before[:, [0, 1, 2, 4]])
    module.prompts.data = module.prompts.data[torch.randperm(6)]
    torch.testing.assert_close(module(h, z), before)


def test_the_term_grows_with_the_square_of_its_input():
    module, h, z = random_module(), torch.zeros(2, 5, 8).double(), torch.randn(2, 5, 8).double()
    nn.init.zeros_(module.up.weight)
    torch.testing.assert_close(module(h, 3 * z), 9 * module(h, z))


def test_no_gradient_flows_through_the_strongest_score():
    module, h = random_module(), torch.zeros(1, 1, 8).double()
    z = torch.randn(1, 1, 8).double().requires_grad_()
    scores = torch.relu(z @ (module.prompts + module.up(module.down(module.prompts))).mT)
    held = module.scale.exp() * scores.max().item() * (scores @ module.prompts)
    wanted = torch.autograd.grad(held.sum(), z)
    torch.testing.assert_close(torch.autograd.grad(module(h, z).sum(), z), wanted)


@pytest.mark.parametrize("text", [False, True])
def test_only_prompts_learn_and_entries_agree(text):
    model = APT(backbone=TinyClip(), class_names=CLASSES, prompts=5, text=text)
    select_stage(model, model.stages()[0])
    batch = {"image": torch.randn(4, 3, 24, 24), "label": torch.tensor([0, 1, 2, 0])}
    model.loss(model.forward_batch(batch), batch)["loss"].backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {name for name, _ in model.named_parameters() if name.startswith("prompts.")}
    assert any("text" in name for name in learning) == text
    model.eval()
    features = model.backbone(batch["image"])
    assert torch.equal(model.forward_features(features).prediction, model(batch["image"]).prediction)


def test_few_steps_lower_the_loss():
    torch.manual_seed(0)
    model = APT(backbone=TinyClip(), class_names=CLASSES, prompts=10)
    select_stage(model, model.stages()[0])
    batch = {"image": torch.randn(6, 3, 24, 24), "label": torch.arange(6) % 3}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(20):
        loss = model.loss(model.forward_batch(batch), batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_prompts_cost_two_products_a_token():
    tokens, width, prompts, rank = 50, 64, 20, 4
    module = ApproximatedPrompts(width=width, prompts=prompts, rank=rank)
    h = z = torch.randn(1, tokens, width)
    with FlopCounterMode(display=False) as counter:
        module(h, z)
    once = 2 * 2 * prompts * width * rank  # the prompts' own transform, whatever the number of tokens
    assert counter.get_total_flops() == 2 * 2 * tokens * prompts * width + once


def test_the_published_parameter_count():
    with torch.device("meta"):
        module = ApproximatedPrompts(width=768)
    assert 12 * sum(p.numel() for p in module.parameters()) == 1916940
