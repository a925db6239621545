"""CEM: parity, and what must hold of mixed embeddings."""

import pytest
import torch

from tests.golden.cases import Case, adapter
from tests.models.concept.test_cbm import ACTIVATIONS
from zoo.models.backbone import MLP, Identity
from zoo.models.concept.cem import CEM
from zoo.models.contract import Batch, Intervention

NAMES = ("wing", "bar", "stem", "loop")


@adapter("cem", "CEM")
def cem(case: Case) -> dict:
    arguments, given = case.arguments, case.input
    count = arguments["n_concepts"]
    model = CEM(
        backbone=MLP(in_channels=arguments["input_dim"], hidden=(arguments["latent_dim"],), activation="Identity"),
        num_outputs=arguments["n_tasks"],
        concept_names=[f"c{index}" for index in range(count)],
        embedding_dim=arguments["emb_size"],
        embedding_activation=ACTIVATIONS[arguments["embedding_activation"]],
        shared_score=arguments["shared_prob_gen"],
        concept_loss_weight=arguments["concept_loss_weight"],
        randint_prob=arguments["training_intervention_prob"],
        head_hidden=arguments["c2y_layers"] or (),
    )
    leaves = {key: value.clone().requires_grad_() for key, value in case.param.items()}
    converted = CEM.convert_state(leaves)
    state = {key.replace("backbone.net.fc1", "backbone.layers.0"): value for key, value in converted.items()}
    assert state.keys() == dict(model.named_parameters()).keys()

    def forward(intervene: Intervention | None = None):
        return torch.func.functional_call(model, state, (given["x"], intervene))

    listed = torch.zeros(count, dtype=torch.bool)
    listed[given["intervention_idx"]] = True
    plain = forward()
    intervened = forward(Intervention(listed, given["c"]))
    masked = forward(Intervention(given["intervention_mask"].bool(), given["c"]))
    randint = forward(Intervention(given["randint_mask"].bool(), given["c"]))
    loss = model.loss(randint, {"concepts": given["c"], "label": given["y"]})["loss"]
    return {
        "output/c_prob": plain.concepts,
        "output/c_emb": plain.latent,
        "output/y_logits": plain.prediction,
        "output/intervened_c_emb": intervened.latent,
        "output/intervened_y_logits": intervened.prediction,
        "output/masked_c_emb": masked.latent,
        "output/masked_y_logits": masked.prediction,
        "output/randint_y_logits": randint.prediction,
        "output/randint_loss": loss,
        **case.gradients(loss, case.differentiated(leaves)),
    }


def build(**arguments) -> CEM:
    torch.manual_seed(0)
    return CEM(
        backbone=MLP(in_channels=6, hidden=(8,)),
        num_outputs=3,
        concept_names=NAMES,
        **({"embedding_dim": 3} | arguments),
    )


def batch_of(size: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(1)
    concepts = (torch.rand(size, len(NAMES), generator=generator) > 0.4).float()
    label = torch.randint(0, 3, (size,), generator=generator)
    return {"image": torch.randn(size, 6, generator=generator), "concepts": concepts, "label": label}


def everywhere() -> torch.Tensor:
    return torch.ones(len(NAMES), dtype=torch.bool)


def test_empty_mask_is_bit_identical_to_none():
    model, batch = build().eval(), batch_of()
    plain = model(batch["image"])
    empty = model(batch["image"], Intervention(~everywhere(), batch["concepts"]))
    assert torch.equal(plain.prediction, empty.prediction)


def test_setting_what_was_predicted_changes_nothing():
    model, batch = build().eval(), batch_of()
    plain = model(batch["image"])
    same = model(batch["image"], Intervention(everywhere(), plain.concepts))
    assert torch.equal(plain.latent, same.latent)


@pytest.mark.parametrize("present", [True, False])
def test_a_concept_set_is_its_own_half_of_the_context(present):
    model, batch = build().eval(), batch_of()
    features = model.backbone(batch["image"])
    halves = model.activation(model.context(features)).reshape(16, len(NAMES), 2, 3)
    found = model(batch["image"], Intervention(everywhere(), torch.full((len(NAMES),), float(present))))
    torch.testing.assert_close(found.extras["concept_embeddings"], halves[:, :, 0 if present else 1])


def test_without_randint_training_is_plain():
    model, batch = build(randint_prob=0.0).train(), batch_of()
    assert torch.equal(model.forward_batch(batch).prediction, model(batch["image"]).prediction)


@pytest.mark.parametrize("mask", ["sample", "batch"])
def test_randint_mixes_in_true_concepts(mask):
    model, batch = build(randint_prob=0.5, randint_mask=mask).train(), batch_of(400)
    plain = model(batch["image"]).extras["concept_embeddings"]
    mixed = model.forward_batch(batch).extras["concept_embeddings"]
    changed = (plain != mixed).any(-1)
    if mask == "batch":
        assert (changed == changed[0]).all()
    else:
        assert 0.45 < changed.float().mean() < 0.55
        assert changed.float().mean(0).min() > 0.3
    certain = build(randint_prob=1.0).train()
    truth = certain(batch["image"], Intervention(everywhere(), batch["concepts"]))
    assert torch.equal(certain.forward_batch(batch).prediction, truth.prediction)
    assert torch.equal(certain.eval().forward_batch(batch).prediction, certain(batch["image"]).prediction)


def test_one_dimension_between_one_and_zero_is_a_sigmoid_bottleneck():
    model, batch = build(embedding_dim=1, embedding_activation="Identity").eval(), batch_of()
    with torch.no_grad():
        model.context.weight.zero_()
        model.context.bias.copy_(torch.tensor([1.0, 0.0]).repeat(len(NAMES)))
    output = model(batch["image"])
    torch.testing.assert_close(output.latent, output.concepts)


def test_permuting_the_concepts_permutes_their_probabilities():
    model, batch = build().eval(), batch_of()
    before = model(batch["image"]).concepts
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        for value in (model.context.weight, model.context.bias):
            value.copy_(value.reshape(len(NAMES), 6, -1)[order].reshape(value.shape))
    torch.testing.assert_close(model(batch["image"]).concepts, before[:, order])


def test_contributions_sum_to_the_logits():
    model, batch = build().eval(), batch_of()
    output = model(batch["image"])
    found = model.contributions(output)
    assert found.shape == (16, len(NAMES), 3)
    torch.testing.assert_close(found.sum(1) + model.head[-1].bias, output.prediction)


def test_the_computed_parameter_counts_for_cub():
    with torch.device("meta"):
        names = [f"c{index}" for index in range(112)]
        model = CEM(backbone=Identity(in_channels=1000), num_outputs=200, concept_names=names)
    counts = {name: sum(p.numel() for p in getattr(model, name).parameters()) for name in ("context", "score", "head")}
    assert counts == {"context": 3_587_584, "score": 33, "head": 358_600}


def test_mistakes():
    with pytest.raises(ValueError, match="randint_prob=2"):
        build(randint_prob=2)
