"""ECBM: energies against the published form, training loss, inference, corrections, queries."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.golden.cases import Case, adapter
from zoo.models.concept.ecbm import ECBM, energy_table
from zoo.models.concept.ecbm_queries import Joint, Query, Term, conditional, parse_query
from zoo.models.concept.energy_landscape import Landscape
from zoo.models.contract import Intervention


class Identity(nn.Identity):
    def __init__(self, feature_dim: int):
        super().__init__()
        self.feature_dim = feature_dim


def build(*, width=6, hidden=8, concepts=4, classes=3, **arguments) -> ECBM:
    names = tuple(f"c{k}" for k in range(concepts))
    return ECBM(backbone=Identity(width), concept_names=names, num_outputs=classes, hidden=hidden, **arguments)


def golden(case: Case, **arguments) -> ECBM:
    a = case.arguments
    model = build(
        width=a["D"], hidden=a["H"], concepts=a["K"], classes=a["M"], dropout=0.0, upstream_order=True, **arguments
    )
    model.load_state_dict(ECBM.convert_state(case.param))
    return model.to(case.dtype)


def energies(model, x, y, c):
    landscape = Landscape(model, x)
    return landscape.class_energy(y), landscape.concept_energy(c), landscape.global_energy(y, c)


def sizes(changed: Tensor) -> tuple[int, int]:
    """Number of rows and columns with a true entry."""
    return int(changed.any(1).sum()), int(changed.any(0).sum())


@adapter("ecbm", "ECBM.train", repeats=("B",))
def ecbm_train(case: Case):
    a = case.arguments
    weights = {"class_weight": a["lambda_xy"], "concept_weight": a["lambda_xc"], "global_weight": a["lambda_cy"]}
    model = golden(case, flip_concepts=0.0, flip_samples=0.0, **weights).train()
    x, c, y = case.input["x"], case.input["c"], case.input["y"]
    perturbed = golden(case, flip_concepts=a["augment_concept_ratio"], flip_samples=a["augment_sample_ratio"]).flip(c)
    assert sizes(perturbed != c) == sizes(case.input["c_augmented_example"] != c)
    output = model(x)
    terms = model.loss(output, {"concepts": c, "label": y})
    parameters = {
        "grad/c_embedding": model.concept_embedding,
        "grad/y_embedding": model.class_embedding,
        "grad/classifier_cy.weight": model.global_energy_of.weight,
        "grad/classifier_xc.0.weight": model.concept_energy_weight,
        "grad/concept_proj.weight": model.global_query.weight,
        "grad/xc_fc1.bias": model.concept_query.bias,
        "grad/xy_fc1.weight": model.class_query.weight,
    }
    grads = case.gradients(terms["loss"], parameters)
    grads["grad/c_embedding"] = grads["grad/c_embedding"].flatten(0, 1)
    grads["grad/classifier_xc.0.weight"] = grads["grad/classifier_xc.0.weight"][:1]
    return grads | {
        "output/xy_energy": output.extras["class_energy"],
        "output/xc_energy": output.extras["concept_energy"],
        "output/cy_energy": model.global_energy(c),
        "output/loss": terms["loss"],
        "output/loss_xy": terms["class"],
        "output/loss_xc": terms["concept"],
        "output/loss_cy": terms["global"],
    }


@adapter("ecbm", "ECBM.inference", repeats=("B",))
def ecbm_inference(case: Case):
    a, x = case.arguments, case.input["x"]
    weights = (a["lambda_xy"], a["lambda_xc"], a["lambda_cy"])
    assert a["check"] == "xy_energy"
    model = golden(
        case,
        inference_weights=weights,
        inference_lr=(a["lr_y"], a["lr_c"]),
        patience=a["patience"],
        delta=a["delta"],
        steps=1000,
        intervention_weight=a["intervention_cy_weight"],
    ).eval()
    y = case.input["y_logits"][..., 0].requires_grad_()
    c = case.input["c_logits"].requires_grad_()
    e_xy, e_xc, e_cy = energies(model, x, y, c)
    loss = weights[0] * e_xy.mean() + weights[1] * e_xc.mean(0).sum() + weights[2] * e_cy.mean()
    grads = case.gradients(loss, {"grad/y_logits": y, "grad/c_logits": c})
    grads["grad/y_logits"] = grads["grad/y_logits"][..., None]
    gi_y, gi_c, gi_steps = model.infer(x)
    n = a["intervened_concepts"]
    start = gi_c.clone()
    clamped = case.input["c"][:, :n, None] == torch.arange(2)
    start[:, :n] = (clamped.float() - 0.5) * 2 * a["intervention_logit"]
    iv_y, iv_c, iv_steps = model.infer(x, weights=(0.0, 0.0, a["intervention_cy_weight"]), c_logits=start)
    return grads | {
        "output/xy_energy": e_xy[:, None],
        "output/xc_energy": e_xc[..., None],
        "output/cy_energy": e_cy[:, None],
        "output/loss": loss,
        "output/y_prob": y.softmax(-1)[..., None],
        "output/c_prob": c.softmax(-1),
        "output/gi_c_logits": gi_c,
        "output/gi_y_logits": gi_y[..., None],
        "output/gi_c_prob": gi_c.softmax(-1),
        "output/gi_y_prob": gi_y.softmax(-1)[..., None],
        "output/gi_steps": gi_steps,
        "output/iv_c_logits_start": start,
        "output/iv_c_prob": iv_c.softmax(-1),
        "output/iv_y_prob": iv_y.softmax(-1)[..., None],
        "output/iv_steps": iv_steps,
    }


@adapter("ecbm", "ECBM.enumeration", repeats=("N",))
def ecbm_enumeration(case: Case):
    a = case.arguments
    model, x = golden(case).eval(), case.input["x"].double()
    configurations = case.input["concept_configurations"]
    weights = (a["lambda_xy"], a["lambda_xc"], a["lambda_cy"])
    joint = Joint.enumerate(model, x, weights=weights)
    assert torch.equal(joint.configurations, configurations)
    table, each, present = joint.probability, conditional(model, x, weights=weights), configurations.double()
    first = each * present[:, :1]
    first = first / first.sum((1, 2), keepdim=True)
    classes, concepts = range(a["M"]), range(a["K"])
    on = [Term(k, 1) for k in concepts]
    pairs = [[joint.ask(Query((on[i],), (on[j],))) for j in concepts] for i in concepts]
    triples = [
        [[joint.ask(Query((on[i],), (Term(None, y), on[j]))) for j in concepts] for i in concepts] for y in classes
    ]
    singles = [[joint.ask(Query((on[k],), (Term(None, y),))) for k in concepts] for y in classes]
    return {
        "output/xy_energy": model.class_energy(x),
        "output/xc_energy": model.concept_energy(x),
        "output/cy_energy_table": model.global_energy(configurations),
        "output/p_y": torch.tensor([joint.ask(Query((Term(None, y),))) for y in classes]),
        "output/p_c_given_y": table / table.sum(0),
        "output/p_ck1_given_y": torch.tensor(singles),
        "output/p_ci1_given_cj1": torch.tensor(pairs),
        "output/p_ci1_given_y_cj1": torch.tensor(triples),
        "output/p_y_given_x": each.sum(1),
        "output/p_ck1_given_x": torch.einsum("nsm,sk->nk", each, present),
        "output/p_y_given_x_c0eq1": first.sum(1),
        "output/p_ck1_given_x_c0eq1": torch.einsum("nsm,sk->nk", first, present),
    }


def test_the_energy_table_is_the_published_elementwise_form():
    query, head = torch.randn(5, 7), nn.Linear(7, 1)
    embedding = F.normalize(torch.randn(3, 7), dim=-1)
    published = head(F.relu(query[:, None] + query[:, None] * embedding))[..., 0]
    torch.testing.assert_close(energy_table(query, embedding, head.weight, head.bias), published)


def test_a_mixture_has_the_published_energy_of_its_normalised_embedding():
    model, x = build(upstream_order=True).eval(), torch.randn(5, 6)
    y, c = torch.randn(5, 3), torch.randn(5, 4, 2)
    e_xy, e_xc, e_cy = energies(model, x, y, c)

    def e(query, embedding, head):
        return head(F.relu(query + query * embedding))[..., 0]

    u_y = F.normalize(y.softmax(-1) @ model.class_embedding, dim=-1)
    states = model.concept_embedding
    u_c = F.normalize(torch.einsum("bkj,jkh->bkh", c.softmax(-1), states), dim=-1)
    hard = torch.where((c[..., 1] > c[..., 0])[..., None], states[0], states[1]).flatten(1)
    torch.testing.assert_close(e_xy, e(model.class_query(x), u_y, model.class_energy_of))
    torch.testing.assert_close(e_cy, e(model.global_query(hard), u_y, model.global_energy_of))
    query = model.concept_query(x)[:, None]
    by_hand = (F.relu(query + query * u_c) * model.concept_energy_weight).sum(-1) + model.concept_energy_bias
    torch.testing.assert_close(e_xc, by_hand)


def test_a_one_hot_class_has_the_energy_of_training():
    model, x = build().eval(), torch.randn(5, 6)
    y, c = torch.full((5, 3), -1e4), torch.zeros(5, 4, 2)
    y[:, 1], c[..., 1] = 1e4, 1e4
    e_xy, e_xc, e_cy = energies(model, x, y, c)
    torch.testing.assert_close(e_xy, model.class_energy(x)[:, 1])
    torch.testing.assert_close(e_xc, model.concept_energy(x)[..., 1])
    torch.testing.assert_close(e_cy, model.global_energy(torch.ones(5, 4))[:, 1])


def test_the_loss_is_cross_entropy_on_negative_energies():
    model, x = build(flip_concepts=0.0).train(), torch.randn(5, 6)
    c, y = torch.randint(2, (5, 4)).float(), torch.randint(3, (5,))
    output = model(x)
    energy = output.extras["class_energy"]
    by_hand = (energy.gather(1, y[:, None])[:, 0] + torch.logsumexp(-energy, 1)).mean()
    torch.testing.assert_close(model.loss(output, {"concepts": c, "label": y})["class"], by_hand)


def test_the_flip_touches_the_stated_share_and_leaves_the_batch_alone():
    model, concepts = build(concepts=5, flip_concepts=0.3, flip_samples=0.5), torch.randint(2, (7, 5))
    before = concepts.clone()
    changed = model.flip(concepts) != concepts
    assert torch.equal(concepts, before)
    assert changed.any(1).sum() == 4
    assert changed.any(0).sum() == 2
    assert changed.sum() == 8


def test_inference_lowers_the_energy_and_does_not_depend_on_the_batch():
    model, x = build().eval(), torch.randn(6, 6)

    def energy(steps):
        model.steps = steps
        y, c, _ = model.infer(x)
        terms = energies(model, x, y, c)
        return sum(w * e.reshape(6, -1).sum(1) for w, e in zip(model.inference_weights, terms)).mean()

    assert energy(100) < energy(20) < energy(1)
    together, alone = model(x), model(x[2:3])
    torch.testing.assert_close(together.prediction[2:3], alone.prediction, rtol=1e-4, atol=1e-4)


def test_the_released_descent_is_of_the_mean_over_the_batch():
    torch.manual_seed(4)
    model, x = build(width=9, concepts=12, classes=6, steps=11, patience=11).eval(), torch.randn(64, 9)
    y, c = torch.zeros(64, 6, requires_grad=True), torch.zeros(64, 12, 2, requires_grad=True)
    descent = torch.optim.Adam([y, c], lr=0.1)
    for _ in range(11):
        e_xy, e_xc, e_cy = energies(model, x, y, c)
        total = e_xy.mean() + e_xc.mean(0).sum() + 0.01 * e_cy.mean()
        y.grad, c.grad = torch.autograd.grad(total, [y, c])
        descent.step()
    for found, wanted in zip(model.infer(x), (y, c)):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_an_empty_mask_changes_no_bit_and_only_masked_rows_move():
    model, x = build().eval(), torch.randn(4, 6)
    mask, values = torch.zeros(4, 4, dtype=torch.bool), torch.ones(4, 4)
    plain, empty = model(x), model(x, Intervention(mask, values))
    assert torch.equal(plain.prediction, empty.prediction)
    assert torch.equal(plain.latent, empty.latent)
    mask[1] = True
    one = model(x, Intervention(mask, values))
    assert torch.equal(one.concepts, plain.concepts)
    assert torch.equal(one.prediction[[0, 2, 3]], plain.prediction[[0, 2, 3]])
    assert not torch.equal(one.prediction[1], plain.prediction[1])
    assert torch.equal(one.latent[1], torch.ones(4))


def test_its_own_hard_concepts_change_the_class_only_by_finding_it_anew():
    model, x = build().eval(), torch.randn(5, 6)
    plain = model(x)
    corrected = model(x, Intervention(torch.ones(4, dtype=torch.bool), (plain.concepts > 0.5).float()))
    assert torch.equal(corrected.concepts, plain.concepts)
    _, found, _ = model.infer(x)
    anew, _, _ = model.infer(x, weights=(0.0, 0.0, model.intervention_weight), c_logits=found)
    torch.testing.assert_close(corrected.prediction, anew)
    assert not torch.allclose(corrected.prediction, plain.prediction)


def test_a_full_correction_forgets_the_image():
    model, c = build().eval(), torch.randint(2, (4,)).float()
    corrected = model(torch.randn(5, 6), Intervention(torch.ones(4, dtype=torch.bool), c)).prediction
    torch.testing.assert_close(corrected, corrected[:1].expand(5, -1))


def test_it_predicts_under_inference_mode_and_gives_parameters_no_gradient():
    model, x = build().eval(), torch.randn(3, 6)
    with torch.inference_mode():
        inside = model(x * 1.0)
    torch.testing.assert_close(inside.prediction, model(x).prediction)
    assert not inside.prediction.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_it_says_why_it_is_no_graph():
    with pytest.raises(ValueError, match="a descent of 100 steps along gradients"):
        torch.export.export(build().eval(), (torch.randn(2, 6),))


def test_every_parameter_learns():
    model = build().train()
    batch = {"concepts": torch.randint(2, (9, 4)).float(), "label": torch.randint(3, (9,))}
    model.loss(model(torch.randn(9, 6)), batch)["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_published_parameter_counts():
    with torch.device("meta"):
        for width, classes, concepts, published in ((2048, 200, 112, 31997354), (2048, 50, 85, 24800990)):
            model = build(width=width, hidden=512, concepts=concepts, classes=classes)
            unused = 262656 + classes + concepts  # fc_c, y_prob and c_prob
            assert sum(p.numel() for p in model.parameters()) == published - unused


def tiny_joint(**weights) -> tuple[ECBM, torch.Tensor, Joint]:
    torch.manual_seed(1)
    model, x = build().double().eval(), torch.randn(7, 6, dtype=torch.float64)
    return model, x, Joint.enumerate(model, x, **weights)


def ask(joint: Joint, text: str) -> float:
    names = SimpleNamespace(concept_names=["c0", "c1", "wing bar, red", "c3"], class_names=["cat", "dog", "owl"])
    return joint.ask(parse_query(text, **vars(names)))


def test_probabilities_obey_the_rules():
    _, _, joint = tiny_joint()
    assert joint.probability.sum().item() == pytest.approx(1, abs=1e-12)
    assert ask(joint, "p(c1 | class=dog, c1=1)") == 1
    assert ask(joint, "p(c1=0 | c1)") == 0
    assert ask(joint, "p(c0) ") == pytest.approx(1 - ask(joint, "p(c0=0)"), abs=1e-12)
    left = ask(joint, "p(c0 | class=2, c1)") * ask(joint, "p(c1 | class=2)")
    right = ask(joint, "p(c1 | class=owl, c0)") * ask(joint, "p(c0 | class=owl)")
    assert left == pytest.approx(right, abs=1e-10)
    assert ask(joint, 'p("wing bar, red", c3=0)') == pytest.approx(
        ask(joint, 'p("wing bar, red"=1 | c3=0)') * ask(joint, "p(c3=0)"), abs=1e-12
    )


def test_without_the_global_energy_concepts_are_independent_given_the_image():
    model, x, _ = tiny_joint()
    joint = Joint.enumerate(model, x[:1], weights=(1.0, 1.0, 0.0))
    assert ask(joint, "p(c0 | class=1, c1, c3=0)") == pytest.approx(ask(joint, "p(c0)"), abs=1e-12)
    alone = (-model.concept_energy(x[:1])).softmax(-1)[0, 0, 1].item()
    assert ask(joint, "p(c0)") == pytest.approx(alone, abs=1e-12)


def test_sampling_agrees_with_enumeration():
    model, x, joint = tiny_joint()
    sampled = Joint.sample(model, x, draws=4000)
    for text in ("p(c0 | class=1)", "p(class=2 | c1, c3=0)", "p(c3 | class=0, c1=0)"):
        assert ask(sampled, text) == pytest.approx(ask(joint, text), abs=0.03)


def test_the_empirical_estimator_counts_pairs():
    joint = Joint.empirical(torch.tensor([[1, 0.0], [1, 1], [0, 1]]), torch.tensor([0, 1, 1]), num_classes=3)
    assert joint.ask(Query((Term(0, 1),), (Term(None, 1),))) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="probability 0"):
        joint.ask(Query((Term(0, 1),), (Term(None, 2),)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c0 | c1", "write it like p"),
        ("p(c0 | c1 | c3)", "write it like p"),
        ("p()", "cannot read ''"),
        ("p(c0 | clas=1)", "unknown concept 'clas': did you mean class"),
        ("p(c11)", "unknown concept 'c11': did you mean c1"),
        ("p(c0=2)", "is 0 or 1, not '2'"),
        ("p(class)", "say which class"),
        ("p(class=dgo)", "unknown class 'dgo': did you mean dog"),
        ("p(class=3)", "unknown class '3': choose one of cat, dog, owl"),
    ],
)
def test_a_query_that_cannot_be_read_is_one_clear_line(text, message):
    _, _, joint = tiny_joint()
    with pytest.raises(ValueError, match=message) as error:
        ask(joint, text)
    assert "\n" not in str(error.value)


def test_too_many_concepts_are_refused():
    with pytest.raises(ValueError, match="too many to enumerate"):
        Joint.enumerate(build(concepts=13), torch.randn(1, 6))
    with pytest.raises(ValueError, match="name no concepts"):
        build(concepts=0)
