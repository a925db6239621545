"""Sparse linear heads: softmax regression under an elastic net.

    min over W (M, K), b (M,) of  mean CE(X W^T + b, y) + lam * (alpha |W|_1 + (1 - alpha)/2 |W|_2^2)

Wong, Santurkar, Madry, "Leveraging sparse linear layers for debuggable deep networks", ICML 2021, arXiv 2105.04857
(GLM-SAGA); Oikarinen et al., "Label-free concept bottleneck models", ICLR 2023, arXiv 2304.06129 (its use on concepts).

`glm_saga` is the published solver step by step: batches of 256, step 0.1, and a stopping rule that ends far from the
optimum where lam is small. `elastic_net` (what the zoo's heads use) minimises the same objective to a stated violation
of the optimality conditions, so that a head depends on no epochs, batch size or learning rate. Released configurations
give `lam` before a division by alpha: their effective lam is lam / 0.99.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot


@dataclass(frozen=True)
class SparseHead:
    """A fitted head: weight (M, K), bias (M,), the penalty `lam`, the iterations it took and the remaining violation of
    the optimality conditions, as a share of lam * alpha (nan where the solver does not measure it)."""

    weight: Tensor
    bias: Tensor
    lam: float
    iterations: int = 0
    violation: float = float("nan")


@dataclass(frozen=True)
class SagaState:
    """What GLM-SAGA carries: the head, every sample's residual at its last visit (N, M), the running mean gradients."""

    weight: Tensor
    bias: Tensor
    table: Tensor
    weight_average: Tensor
    bias_average: Tensor


def soft_threshold(x: Tensor, lam: float, shrink: float = 0.0) -> Tensor:
    """Proximal step of lam |x|_1 + shrink/2 |x|^2: sign(x) max(|x| - lam, 0) / (1 + shrink)."""
    return (x - x.clamp(-lam, lam)) / (1 + shrink)


def group_threshold(x: Tensor, lam: float) -> Tensor:
    """Proximal step of lam * sum over columns of their Euclidean norm: a concept leaves all classes (M, K) at once."""
    norm = x.norm(dim=0, keepdim=True)
    return x * (1 - lam / norm.clamp_min(lam)) if lam > 0 else x


def objective(x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, lam: float, alpha: float = 0.99) -> Tensor:
    """Mean cross entropy plus the elastic net; x (N, K), labels (N,) -> scalar."""
    penalty = alpha * weight.abs().sum() + (1 - alpha) / 2 * weight.square().sum()
    return cross_entropy(x @ weight.T + bias, labels) + lam * penalty


def max_regularisation(x: Tensor, labels: Tensor, num_classes: int) -> float:
    """The l1 penalty lam * alpha from which on the optimum is W = 0: max |X^T (Y - mean Y)| / N."""
    targets = one_hot(labels, num_classes).to(x)
    return float((x.T @ (targets - targets.mean(0))).abs().max() / len(x))


def glm_saga(
    x: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    lam: float,
    alpha: float = 0.99,
    epochs: int = 1000,
    batch_size: int = 256,
    lr: float = 0.1,
    tolerance: float = 1e-4,
    shuffle: bool = True,
    seed: int = 0,
) -> SagaState:
    """The published solver: variance-reduced proximal steps over batches, from zero, until a step is below `tolerance`.

    x: (N, K), standardised. labels: (N,). Stops after the first batch with |(dW, db)| <= tolerance, or after `epochs`.
    """
    count = len(x)
    targets = one_hot(labels, num_classes).to(x)
    weight, bias = x.new_zeros(num_classes, x.shape[1]), x.new_zeros(num_classes)
    table, weight_average, bias_average = torch.zeros_like(targets), torch.zeros_like(weight), torch.zeros_like(bias)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
        for rows in order.to(x.device).split(batch_size):
            batch = x[rows]
            residual = (batch @ weight.T + bias).softmax(dim=1) - targets[rows]
            change = residual - table[rows]
            table[rows] = residual
            weight_change, bias_change = change.T @ batch / len(rows), change.mean(0)
            stepped = weight - lr * (weight_change + weight_average)
            new_weight = soft_threshold(stepped, lr * lam * alpha, lr * lam * (1 - alpha))
            new_bias = bias - lr * (bias_change + bias_average)
            weight_average += weight_change * (len(rows) / count)
            bias_average += bias_change * (len(rows) / count)
            moved = torch.hypot((new_weight - weight).norm(), (new_bias - bias).norm())
            weight, bias = new_weight, new_bias
            if moved <= tolerance:
                return SagaState(weight, bias, table, weight_average, bias_average)
    return SagaState(weight, bias, table, weight_average, bias_average)


@torch.no_grad()
def elastic_net(
    x: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    lam: float,
    alpha: float = 0.99,
    tolerance: float = 1e-2,
    max_iterations: int = 2000,
    start: SparseHead | None = None,
) -> SparseHead:
    """Minimise the objective until the optimality conditions hold to `tolerance` * lam * alpha.

    x: (N, K) of any scale. labels: (N,). start: a head to begin from (the neighbour on a path).

    FISTA (Beck and Teboulle 2009) with gradient restarts (O'Donoghue and Candes, arXiv 1204.3982). A step of 1/L is
    accepted where the Bregman divergence of the loss is at most L/2 |step|^2; L shrinks by 5 % after every step. Logits
    are linear in the head, so those at the extrapolated point cost no product with x.

    Raises:
        ValueError: x is not finite.
    """
    if not torch.isfinite(x).all():
        raise ValueError("a sparse head cannot be fitted: the concept scores of the training images are not finite")
    centre = x.mean(0)
    x, targets = x - centre, one_hot(labels, num_classes).to(x)
    l1, l2 = lam * alpha, lam * (1 - alpha)
    head = x.new_zeros(num_classes, x.shape[1] + 1)
    if start is not None:
        head = torch.cat([start.weight, (start.bias + start.weight @ centre)[:, None]], dim=1).to(x)
    logits = _logits(x, head)
    before, logits_before = head, logits
    curvature, momentum, mix, violation, iterations = 1.0, 1.0, 0.0, float("inf"), 0
    while violation > tolerance and iterations < max_iterations:
        point, point_logits = head + mix * (head - before), logits + mix * (logits - logits_before)
        probability = point_logits.softmax(dim=1).clamp_min(1e-25)  # denormal numbers would slow a CPU fivefold
        residual = (probability - targets) / len(x)
        gradient = torch.cat([residual.T @ x, residual.sum(0)[:, None]], dim=1)
        accepted = False
        while not accepted:
            new = _proximal_step(point, gradient, curvature, l1, l2)
            new_logits, step = _logits(x, new), new - point
            length = float(step.square().sum())
            needed = 2 * _bregman(probability, new_logits - point_logits) / length if length > 0 else 0.0
            accepted = needed <= curvature * 1.0001
            if not accepted:
                curvature = max(1.3 * curvature, min(needed, 10 * curvature))
        violation = float(step.abs().max()) * curvature / (l1 or 1.0)
        momentum = 1.0 if float((step * (new - head)).sum()) < 0 else momentum
        momentum, mix = _next_momentum(momentum)
        before, logits_before, head, logits = head, logits, new, new_logits
        curvature, iterations = curvature * 0.95, iterations + 1
    weight = head[:, :-1]
    return SparseHead(weight, head[:, -1] - weight @ centre, lam, iterations, violation)


def _proximal_step(point: Tensor, gradient: Tensor, curvature: float, l1: float, l2: float) -> Tensor:
    """A gradient step of 1 / curvature, then that of the penalty, on heads (M, K + 1); the bias has no penalty."""
    stepped = point - gradient / curvature
    return torch.cat([soft_threshold(stepped[:, :-1], l1 / curvature, l2 / curvature), stepped[:, -1:]], dim=1)


def _logits(x: Tensor, head: Tensor) -> Tensor:
    """x (N, K), head (M, K + 1) with the bias last -> (N, M)."""
    return torch.addmm(head[:, -1], x, head[:, :-1].T)


def _next_momentum(momentum: float) -> tuple[float, float]:
    """Nesterov's sequence, and how far to extrapolate."""
    following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
    return following, (momentum - 1) / following


def _bregman(probability: Tensor, change: Tensor) -> float:
    """CE(z + change) - CE(z) - <gradient, change>, mean over rows, without cancellation: log(1 + E[e^u - 1 - u])."""
    centred = change - (probability * change).sum(1, keepdim=True)
    return float((probability * (torch.expm1(centred) - centred)).sum(1).log1p().mean())
