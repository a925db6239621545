"""Sparse heads: the published solver step by step, and the zoo's against closed conditions and scikit-learn."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.golden.cases import Case, Result, adapter
from zoo.models.concept.glm_saga import (
    SparseHead,
    elastic_net,
    glm_saga,
    group_threshold,
    max_regularisation,
    objective,
    soft_threshold,
)


def problem(count: int = 300, width: int = 15, classes: int = 4, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, width, generator=generator, dtype=dtype)
    x[:, 1] += x[:, 0]
    scores = x @ torch.randn(width, classes, generator=generator, dtype=dtype)
    labels = (scores + 2 * torch.randn(count, classes, generator=generator, dtype=dtype)).argmax(1)
    return (x - x.mean(0)) / x.std(0), labels


@adapter("lfcbm", "SparseHead.glm_saga")
def sparse_head(case: Case) -> Result:
    given = case.arguments
    x, labels = case.input["X"], case.input["y"]
    classes = int(labels.max()) + 1
    settings = {"num_classes": classes, "lam": given["lam"], "alpha": given["alpha"]}
    recipe = settings | {"batch_size": given["batch_size"], "lr": given["lr"], "tolerance": given["tol"]}
    short = glm_saga(x, labels, **recipe, shuffle=given["shuffle"], epochs=given["short_epochs"])
    long = glm_saga(x, labels, **recipe, shuffle=given["shuffle"], epochs=given["epochs"])
    exact = elastic_net(x.double(), labels, **settings, tolerance=1e-8, max_iterations=20000)
    vector, shrink = case.input["prox_v"], given["prox_shrink"]
    lam, weight = given["prox_lam"], case.input["group_w"]
    value = objective(x, labels, long.weight, long.bias, given["lam"], given["alpha"])
    best = objective(x.double(), labels, exact.weight, exact.bias, given["lam"], given["alpha"])
    return {
        "output/saga2_weight": short.weight,
        "output/saga2_bias": short.bias,
        "output/saga_weight": long.weight,
        "output/saga_bias": long.bias,
        "output/saga_a_table": long.table,
        "output/saga_w_grad_avg": long.weight_average,
        "output/saga_objective": value,
        "output/max_reg": max_regularisation(x.double(), labels, classes),
        "output/optimum_weight": exact.weight,
        "output/optimum_bias_centred": exact.bias - exact.bias.mean(),
        "output/optimum_objective": best,
        f"output/soft_threshold_{lam}": soft_threshold(vector, lam),
        f"output/soft_threshold_shrink_{lam}_{shrink}": soft_threshold(vector, lam, shrink),
        f"output/group_threshold_{given['group_lam']}": group_threshold(weight, given["group_lam"]),
        "expected/nec_at_1e-5": float((long.weight.abs() > 1e-5).sum() / classes),
    }


@pytest.mark.parametrize("lam", [0.1, 0.01, 1e-3])
def test_optimality_conditions_hold(lam):
    """Where a weight is zero the gradient is within lam * alpha; elsewhere it balances the penalty."""
    x, labels = problem()
    head = elastic_net(x, labels, num_classes=4, lam=lam, tolerance=1e-6)
    weight, bias = head.weight.clone().requires_grad_(), head.bias.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, labels)
    gradient, at_bias = torch.autograd.grad(loss, [weight, bias])
    zero = head.weight == 0
    assert (gradient[zero].abs() <= lam * 0.99 * (1 + 1e-5)).all()
    wanted = -lam * (0.99 * head.weight.sign() + 0.01 * head.weight)
    torch.testing.assert_close(gradient[~zero], wanted[~zero], atol=lam * 1e-5, rtol=0)
    assert at_bias.abs().max() < lam * 1e-5
    assert head.violation <= 1e-6


def test_agrees_with_scikit_learn():
    x, labels = problem()
    lam = 0.01
    head = elastic_net(x, labels, num_classes=4, lam=lam, tolerance=1e-8)
    reference = LogisticRegression(
        solver="saga", l1_ratio=0.99, C=1 / (len(x) * lam), tol=1e-10, max_iter=20000, random_state=0
    ).fit(x.numpy(), labels.numpy())
    torch.testing.assert_close(head.weight, torch.tensor(reference.coef_), atol=1e-5, rtol=0)


def test_saga_and_the_exact_solver_meet():
    x, labels = problem()
    saga = glm_saga(x, labels, num_classes=4, lam=0.02, epochs=1000, batch_size=50, tolerance=0)
    exact = elastic_net(x, labels, num_classes=4, lam=0.02, tolerance=1e-8)
    gap = objective(x, labels, saga.weight, saga.bias, 0.02) - objective(x, labels, exact.weight, exact.bias, 0.02)
    assert -1e-9 < gap < 1e-5
    torch.testing.assert_close(saga.weight, exact.weight, atol=1e-3, rtol=0)


def test_nothing_is_left_from_the_largest_penalty_on():
    x, labels = problem()
    largest = max_regularisation(x, labels, 4) / 0.99
    assert not elastic_net(x, labels, num_classes=4, lam=largest * 1.001, tolerance=1e-8).weight.any()
    assert elastic_net(x, labels, num_classes=4, lam=largest * 0.98, tolerance=1e-8).weight.any()


def test_bias_and_start_do_not_matter():
    """A shift of the inputs moves into the bias, and a warm start ends at the same head."""
    x, labels = problem()
    plain = elastic_net(x, labels, num_classes=4, lam=0.01, tolerance=1e-8)
    shifted = elastic_net(x + 5, labels, num_classes=4, lam=0.01, tolerance=1e-8)
    torch.testing.assert_close(shifted.weight, plain.weight, atol=1e-6, rtol=0)
    logits = (x + 5) @ shifted.weight.T + shifted.bias - x @ plain.weight.T - plain.bias
    assert (logits - logits.mean(1, keepdim=True)).abs().max() < 1e-5
    start = SparseHead(torch.ones(4, 15, dtype=x.dtype), torch.ones(4, dtype=x.dtype), 0.0)
    warm = elastic_net(x, labels, num_classes=4, lam=0.01, tolerance=1e-8, start=start)
    torch.testing.assert_close(warm.weight, plain.weight, atol=1e-6, rtol=0)


@pytest.mark.parametrize("classes", [2, 4])
def test_separable_data_stay_finite(classes):
    x, _ = problem(classes=classes)
    labels = x[:, :classes].argmax(1)
    head = elastic_net(x.float(), labels, num_classes=classes, lam=1e-5, max_iterations=200)
    assert torch.isfinite(head.weight).all()
    assert ((x.float() @ head.weight.T + head.bias).argmax(1) == labels).float().mean() > 0.99


def test_soft_threshold_minimises_its_problem():
    values, grid = torch.linspace(-2, 2, 9).double(), torch.linspace(-3, 3, 60001).double()
    for value in values:
        cost = 0.5 * (grid - value) ** 2 + 0.5 * grid.abs() + 0.1 * grid**2
        assert abs(float(soft_threshold(value, 0.5, 0.2)) - float(grid[cost.argmin()])) < 5e-4
