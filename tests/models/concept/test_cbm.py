"""CBM: parity with both released codes, and what must hold of any concept bottleneck."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.golden.cases import Case, adapter
from zoo.data.class_concepts import class_concepts
from zoo.models.backbone import MLP, ConvNet, Identity
from zoo.models.concept.base import complete_groups
from zoo.models.concept.cbm import CBM
from zoo.models.contract import Batch, Intervention

NAMES = ("wing", "bar", "stem", "loop")
ACTIVATIONS = {"leakyrelu": "LeakyReLU", "relu": "ReLU", "sigmoid": "Sigmoid", "identity": "Identity", None: "Identity"}


def names(count: int) -> tuple[str, ...]:
    return tuple(f"c{index}" for index in range(count))


def build(**arguments) -> CBM:
    torch.manual_seed(0)
    return CBM(backbone=MLP(in_channels=6, hidden=(8,)), num_outputs=3, concept_names=NAMES, **arguments)


def batch_of(size: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(1)
    concepts = (torch.rand(size, len(NAMES), generator=generator) > 0.4).float()
    label = torch.randint(0, 3, (size,), generator=generator)
    return {"image": torch.randn(size, 6, generator=generator), "concepts": concepts, "label": label}


def only(indices: Tensor, count: int) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[indices] = True
    return mask


def load_head(head: nn.Sequential, layers: list[tuple[Tensor, Tensor]]) -> None:
    for layer, (weight, bias) in zip([layer for layer in head if isinstance(layer, nn.Linear)], layers):
        layer.load_state_dict({"weight": weight, "bias": bias})


@adapter("cbm", "class_attributes", repeats=("n_attributes",))
def class_attributes(case: Case) -> dict:
    arguments = case.arguments
    found = class_concepts(
        case.input["attributes"].numpy(),
        case.input["certainty"].numpy(),
        case.input["labels"].numpy(),
        num_classes=arguments["n_classes"],
        min_classes=arguments["min_class_count"],
    )
    return {
        "output/class_attributes": found.table,
        "output/selected_attributes": found.selected,
        "output/imbalance_ratio": found.imbalance,
    }


@adapter("cbm", "JointCBM")
def joint_cbm(case: Case) -> dict:
    arguments, param, given = case.arguments, case.param, case.input
    count, extra = arguments["n_concepts"], arguments["extra_dims"]
    sigmoid, extra_activation = arguments["sigmoidal_prob"], ACTIVATIONS[arguments["bottleneck_nonlinear"]]
    model = CBM(
        backbone=Identity(in_channels=arguments["input_dim"]),
        num_outputs=arguments["n_tasks"],
        concept_names=names(count),
        bottleneck="sigmoid" if sigmoid else "logit",
        concept_loss_weight=arguments["concept_loss_weight"],
        concept_reduction="mean",
        head_hidden=arguments["c2y_layers"] or (),
        extra_dims=extra,
        extra_activation=extra_activation if sigmoid else "Identity",
    )
    leaves = {key: value.clone().requires_grad_() for key, value in param.items()}
    state = CBM.convert_state(leaves)
    if arguments["intervention_values"] == "zero_one":
        state |= {"concept_absent": torch.tensor(0.0), "concept_present": torch.tensor(1.0)}
    else:
        assert "concept_present" in state
    # one layer of theirs gives the concepts and the extra dimensions
    for kind in ("weight", "bias"):
        layer = state.pop(f"concept_layer.{kind}")
        state |= {f"concept_layer.{kind}": layer[:count]} | ({f"extra_layer.0.{kind}": layer[count:]} if extra else {})
    output = torch.func.functional_call(model, state, (given["x"],))
    loss = model.loss(output, {"concepts": given["c"], "label": given["y"]})["loss"]
    intervention = Intervention(only(given["intervention_idx"], count), given["c"])
    corrected = torch.func.functional_call(model, state, (given["x"], intervention))
    return {
        "output/y_logits": output.prediction,
        "output/bottleneck": output.latent,
        "output/c_prob": output.concepts,
        "output/intervened_y_logits": corrected.prediction,
        "output/intervened_bottleneck": corrected.latent,
        "output/loss": loss,
        **case.gradients(loss, case.differentiated(leaves)),
    }


@adapter("cbm", "EndToEndCBM")
def end_to_end_cbm(case: Case) -> dict:
    """The auxiliary branch is a second concept layer in front of the same head: the loss is a sum over both."""
    arguments, param, given = case.arguments, case.param, case.input
    count = arguments["n_attributes"]
    modes = [mode for mode in ("relu", "sigmoid") if arguments[f"use_{mode}"]]
    model = CBM(
        backbone=Identity(in_channels=arguments["input_dim"]),
        num_outputs=arguments["num_classes"],
        concept_names=names(count),
        bottleneck=(*modes, "logit")[0],
        concept_loss_weight=arguments["attr_loss_weight"],
        concept_reduction="normalized_sum" if arguments["normalize_loss"] else "sum",
        imbalance="weight",
        head_hidden=(arguments["expand_dim"],) if arguments["expand_dim"] else (),
        head_activation="ReLU",
    )
    model.concept_weights.copy_(given["imbalance_weight"])
    leaves = {key: value.clone().requires_grad_() for key, value in param.items()}
    batch = {"concepts": given["c"], "label": given["y"]}
    branches = {}
    for branch, other in (("main", "aux"), ("aux", "main")):
        own = {key.replace(f".{branch}.", ".main."): value for key, value in leaves.items() if f".{other}." not in key}
        branches[branch] = torch.func.functional_call(model, CBM.convert_state(own), (given["x"],))
    losses = {branch: model.loss(output, batch)["loss"] for branch, output in branches.items()}
    loss = losses["main"] + arguments["aux_weight"] * losses["aux"]
    return {
        "output/class_logits": branches["main"].prediction,
        "output/aux_class_logits": branches["aux"].prediction,
        "output/loss": loss,
        **case.gradients(loss, case.differentiated(leaves)),
    }


@adapter("cbm", "test_time_intervention")
def corrected_at_test_time(case: Case) -> dict:
    """The backbone is the identity and so is the concept layer, so that the model is given concept logits."""
    arguments, given = case.arguments, case.input
    count = arguments["n_concepts"]
    logits, instance = given["concept_logits"], given["c_instance"]
    visible = torch.where(given["certainty"] == arguments["invisible_certainty"], 0, instance)
    mask = torch.isin(given["group_of_concept"], given["intervened_groups"])
    result: dict = {}
    for variant, values in [
        ("logit_class", given["c_class"]),
        ("sigmoid_class", given["c_class"]),
        ("logit_instance_invisible", visible),
    ]:
        model = CBM(
            backbone=Identity(in_channels=count),
            num_outputs=arguments["num_classes"],
            concept_names=names(count),
            bottleneck=variant.split("_")[0],
            percentiles=arguments["percentiles"],
        ).eval()
        model.concept_layer.load_state_dict({"weight": torch.eye(count), "bias": torch.zeros(count)})
        load_head(model.head, [(case.param["weight"], case.param["bias"])])
        if model.bottleneck_mode == "logit":
            model.fit_percentiles(logits)
            for percentile, value in zip(arguments["percentiles"], (model.concept_absent, model.concept_present)):
                result[f"output/p{percentile}"] = value
        output = model(logits, Intervention(mask, values))
        result |= {f"output/{variant}_bottleneck": output.latent, f"output/{variant}_logits": output.prediction}
    return result


@pytest.mark.parametrize("bottleneck", ["sigmoid", "logit", "relu"])
def test_empty_mask_is_bit_identical_to_none(bottleneck):
    model, batch = build(bottleneck=bottleneck, extra_dims=2).eval(), batch_of()
    plain = model(batch["image"])
    empty = model(batch["image"], Intervention(torch.zeros(len(NAMES), dtype=torch.bool), batch["concepts"]))
    assert torch.equal(plain.prediction, empty.prediction)
    assert torch.equal(plain.latent, empty.latent)


@pytest.mark.parametrize("bottleneck", ["sigmoid", "logit"])
def test_an_intervention_changes_what_it_names_and_no_more(bottleneck):
    model, batch = build(bottleneck=bottleneck).eval(), batch_of()
    mask = only(torch.tensor([1, 3]), len(NAMES))
    plain = model(batch["image"])
    corrected = model(batch["image"], Intervention(mask, batch["concepts"]))
    assert torch.equal(plain.concepts, corrected.concepts)
    assert torch.equal(plain.latent[:, ~mask], corrected.latent[:, ~mask])
    high, low = model.concept_present, model.concept_absent
    wanted = torch.where(batch["concepts"] > 0.5, high, low)
    assert torch.equal(corrected.latent[:, mask], wanted[:, mask])


def test_images_and_features_give_the_same():
    model, batch = build(extra_dims=1).eval(), batch_of()
    features = model.backbone(batch["image"])
    assert torch.equal(model(batch["image"]).prediction, model.forward_batch({"features": features}).prediction)


def test_contributions_sum_to_the_logits():
    model, batch = build(), batch_of()
    with torch.inference_mode():
        output = model.eval()(batch["image"])
    found = model.contributions(output)
    assert found.shape == (16, len(NAMES), 3)
    torch.testing.assert_close(found.sum(1) + model.head[-1].bias, output.prediction.clone())
    torch.testing.assert_close(found[:, 2, 1], output.latent[:, 2].clone() * model.head[-1].weight[1, 2])


def test_joint_loss_is_its_parts():
    batch = batch_of()
    model = build(concept_loss_weight=0.5, concept_reduction="normalized_sum")
    output = model(batch["image"])
    probability = output.concepts.double()
    entropy = -(probability.log() * batch["concepts"] + (1 - probability).log() * (1 - batch["concepts"]))
    wanted = (nn.functional.cross_entropy(output.prediction, batch["label"]) + 0.5 * entropy.mean(0).sum()) / 3
    torch.testing.assert_close(model.loss(output, batch)["loss"].double(), wanted, rtol=1e-5, atol=1e-6)


def test_independent_head_learns_from_the_true_concepts_only():
    model, batch = build(training="independent"), batch_of()
    stages = model.stages()
    assert [stage.name for stage in stages] == ["concepts", "label"]
    loss = getattr(model, stages[1].loss)(model(batch["image"]), batch)["loss"]
    loss.backward()
    assert all(value.grad is None for value in model.concept_layer.parameters())
    assert all(value.grad is None for value in model.backbone.parameters())
    torch.testing.assert_close(loss, nn.functional.cross_entropy(model.head(batch["concepts"]), batch["label"]))


def test_stages_name_every_parameter_once():
    model = build(training="sequential", extra_dims=2, head_hidden=(4,))
    for name, _ in model.named_parameters():
        assert sum(name.startswith(stage.trains) for stage in model.stages()) == 1


@pytest.mark.parametrize("imbalance", ["weight", "pos_weight"])
def test_imbalance_comes_from_the_training_data(imbalance):
    model, batch = build(imbalance=imbalance), batch_of()
    table = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]], dtype=np.float32)
    model.prepare(SimpleNamespace(train_set=SimpleNamespace(concepts=table)))
    assert model.concept_weights.tolist() == [3, 3, 1, 3]
    output = model(batch["image"])
    entropy = model.concept_entropy(output.extras["concept_logits"], batch)
    plain = build().concept_entropy(output.extras["concept_logits"], batch)
    positive = batch["concepts"] > 0.5
    scaled = plain * model.concept_weights
    torch.testing.assert_close(entropy[positive], scaled[positive])
    torch.testing.assert_close(entropy[~positive], (scaled if imbalance == "weight" else plain)[~positive])


def test_percentiles_are_read_off_the_training_data():
    model, batch = build(bottleneck="logit"), batch_of(200)
    loader = [{key: value[start : start + 50] for key, value in batch.items()} for start in range(0, 200, 50)]
    model.finish_stage(model.stages()[0], SimpleNamespace(train_dataloader=lambda: loader))
    logits = model.eval()(batch["image"]).extras["concept_logits"].detach().numpy()
    np.testing.assert_allclose(model.concept_absent, np.percentile(logits, 5, axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.concept_present, np.percentile(logits, 95, axis=0), rtol=1e-5)
    extremes = build(bottleneck="logit", percentiles=(0, 100))
    assert extremes.concept_absent.isfinite().all()
    assert extremes.concept_present.isfinite().all()
    extremes.fit_percentiles(torch.as_tensor(logits))
    np.testing.assert_allclose(extremes.concept_absent, logits.min(0))
    np.testing.assert_allclose(extremes.concept_present, logits.max(0))


def test_regression():
    model = CBM(
        backbone=MLP(in_channels=6, hidden=(8,)), num_outputs=2, concept_names=NAMES, task="regression", extra_dims=1
    )
    batch = batch_of() | {"label": torch.rand(16, 2)}
    terms = model.loss(model(batch["image"]), batch)
    terms["loss"].backward()
    assert set(terms) == {"loss", "task", "concept"}


def test_mistakes():
    with pytest.raises(ValueError, match="data=digits"):
        CBM(backbone=MLP(in_channels=6, hidden=(8,)), num_outputs=3, concept_names=())
    with pytest.raises(ValueError, match="take sigmoid"):
        build(training="independent", bottleneck="logit")
    with pytest.raises(ValueError, match="percentiles"):
        build(percentiles=(95, 5))
    with pytest.raises(ValueError, match="there are 3"):
        complete_groups(["a", "b", "c"], [("colour", [2, 3])])
    model = build()
    with pytest.raises(ValueError, match="no concepts"):
        model.loss(model(torch.rand(2, 6)), {"label": torch.zeros(2, dtype=torch.long)})


def of_positions(**arguments) -> CBM:
    torch.manual_seed(0)
    backbone = ConvNet(in_channels=1, widths=(4, 6))
    return CBM(backbone=backbone, num_outputs=3, concept_names=NAMES, pool="max", **arguments).eval()


def test_a_concept_is_as_present_as_at_its_best_position():
    model, images = of_positions(extra_dims=2), torch.randn(5, 1, 6, 10)
    feature_map = model.backbone(images)
    assert feature_map.shape == (5, 6, 3, 5)
    logits = torch.einsum("bdhw,kd->bkhw", feature_map, model.concept_layer.weight)
    output = model(images)
    wanted = logits.amax((2, 3)) + model.concept_layer.bias
    torch.testing.assert_close(output.extras["concept_logits"], wanted)
    torch.testing.assert_close(output.extras["extra"], model.extra_layer(feature_map.mean((2, 3))))
    rows, columns = output.extras["concept_places"].unbind(2)
    at = (rows * 3 - 0.5).round().long() * 5 + (columns * 5 - 0.5).round().long()
    assert torch.equal(at, logits.flatten(2).argmax(2))
    assert torch.equal(model.forward_batch({"features": feature_map}).prediction, output.prediction)


def test_positions_learn_and_are_corrected():
    model = of_positions().train()
    batch = batch_of() | {"image": torch.randn(16, 1, 8, 8)}
    model.loss(model(batch["image"]), batch)["loss"].backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())
    model.eval()
    values = torch.ones(len(NAMES))
    plain = model(batch["image"])
    kept = model(batch["image"], Intervention(torch.zeros(len(NAMES), dtype=torch.bool), values))
    assert torch.equal(kept.prediction, plain.prediction)
    set_all = model(batch["image"], Intervention(torch.ones(len(NAMES), dtype=torch.bool), values))
    torch.testing.assert_close(set_all.prediction, model.head(values.expand(16, -1)))
    assert torch.equal(set_all.concepts, plain.concepts)


def test_one_position_is_the_pooled_model():
    """A flat input has one position: the largest of one logit is the logit."""
    pooled, positions = build(), build(pool="max")
    positions.load_state_dict(
        {key.replace("backbone.", "backbone.backbone."): v for key, v in pooled.state_dict().items()}
    )
    images = batch_of()["image"]
    torch.testing.assert_close(positions(images).prediction, pooled(images).prediction)


def test_positions_of_a_frozen_backbone_stay_frozen():
    backbone = ConvNet(in_channels=1, widths=(4,), frozen=True)
    model = CBM(backbone=backbone, num_outputs=3, concept_names=NAMES, pool="max").train()
    assert model.backbone.frozen
    assert not model.backbone.training
    assert not any(value.requires_grad for value in model.backbone.parameters())
