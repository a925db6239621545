"""Energy-based concept bottleneck (ECBM): Xu, Qin, Mi, Wang, Li, ICLR 2024, arXiv 2401.14142.

Three energies share embeddings of classes and of concept states; low energy means "fits together":

    class    E_xy(x, y)    = e_xy(a_xy(x), u_y)
    concept  E_xc(x, k, j) = e_k (a_xc(x), u_kj),  j = 1 where concept k is present
    global   E_cy(c, y)    = e_cy(P [v_1 .. v_K], u_y)

with e(a, u) = w . ReLU(a + a * u) + b. Each is trained as softmax regression on negative energies. A prediction is an
optimisation: logits of y and c start at 0 and descend the joint energy; after a correction y is found anew.

Where the released code differs from what is computed here:
- It reads the first half of the concept table as "absent" in E_xc and as "present" in E_cy; `upstream_order=True`.
- It stops inference as soon as the batch's mean E_xy has not fallen by more than 1 in ten steps, which on energies of
  ordinary scale is after 11 steps, far from converged; `patience=10, delta=1.0`. Here `steps` steps are taken always,
  so that a sample's result does not depend on its batch.
- It declares a layer `fc_c` (H x H) that it never uses.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.dispatch import exporting
from zoo.models.backbone import Backbone
from zoo.models.concept.base import NO_CONCEPTS, Groups, complete_groups
from zoo.models.contract import Batch, Intervention, Output, ZooModel

CLAMP = 5.0


def energy_table(query: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """e(a, u) = w . ReLU(a + a * u) + b for every pair of a query (N, H) and an embedding (M, H): (N, M).

    No component of a normalised u is below -1, so ReLU(a + a * u) = ReLU(a) * (1 + u): the table is a matrix product.
    """
    return F.relu(query) @ (weight * (1 + embedding)).mT + bias


class Landscape:
    """The energies of given images as a function of soft y and c, without the width H in any step.

    At a mixture u = sum_i p_i u_i / |sum_i p_i u_i| of embeddings, e(a, u) = base + (sum_i p_i slope_i) / sqrt(p G p)
    with g = w * ReLU(a), base = sum g + b, slope_i = g . u_i and G the Gram matrix of the embeddings.
    """

    def __init__(self, model: "ECBM", features: Tensor):
        self.model, classes = model, model.class_embedding
        self.class_gram = classes @ classes.mT
        states = model.concept_embedding.transpose(0, 1)
        self.concept_gram = states @ states.mT
        self.class_base, self.class_slope = self._of_classes(model.class_query(features), model.class_energy_of)
        pull = F.relu(model.concept_query(features))[:, None] * model.concept_energy_weight
        self.concept_base = pull.sum(-1) + model.concept_energy_bias
        self.concept_slope = torch.einsum("bkh,kjh->bkj", pull, states)
        self._hard: Tensor | None = None

    def _of_classes(self, query: Tensor, head: nn.Linear) -> tuple[Tensor, Tensor]:
        pull = F.relu(query) * head.weight[0]
        return pull.sum(-1) + head.bias, pull @ self.model.class_embedding.mT

    def of_class(self, y_logits: Tensor) -> Tensor:
        """E_xy (B,) at logits of y (B, M)."""
        return self._mixture(self.class_base, self.class_slope, y_logits)

    def of_concepts(self, c_logits: Tensor) -> Tensor:
        """E_xc (B, K) at logits of c (B, K, 2)."""
        c = c_logits.softmax(-1)
        length = torch.einsum("bki,kij,bkj->bk", c, self.concept_gram, c).sqrt()
        return self.concept_base + (c * self.concept_slope).sum(-1) / length

    def of_both(self, y_logits: Tensor, c_logits: Tensor) -> Tensor:
        """E_cy (B,). It takes hard concepts, so that no gradient reaches their logits through it."""
        hard = c_logits[..., 1] > c_logits[..., 0]
        if self._hard is None or not torch.equal(hard, self._hard):
            with torch.no_grad():
                query = self.model.concepts_query(hard.to(c_logits))
                self._hard, self._both = hard, self._of_classes(query, self.model.global_energy_of)
        return self._mixture(*self._both, y_logits)

    def _mixture(self, base: Tensor, slope: Tensor, y_logits: Tensor) -> Tensor:
        y = y_logits.softmax(-1)
        return base + (y * slope).sum(-1) / ((y @ self.class_gram) * y).sum(-1).sqrt()


class Adam:
    """Adam (arXiv 1412.6980) on one tensor, in place; torch.optim would load the compiler for the first prediction."""

    def __init__(self, values: Tensor, *, lr: float, eps: float):
        self.values, self.lr, self.eps, self.steps = values, lr, eps, 0
        self.first, self.second = torch.zeros_like(values), torch.zeros_like(values)

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        self.steps += 1
        self.first.lerp_(gradient, 0.1)
        self.second.lerp_(gradient.square(), 0.001)
        scale = (self.second / (1 - 0.999**self.steps)).sqrt() + self.eps
        self.values -= self.lr / (1 - 0.9**self.steps) * self.first / scale


class ECBM(ZooModel):
    """Concepts and class by descent of a joint energy.

    Args:
        backbone: gives features (B, D).
        hidden: width H of the energies.
        class_weight, concept_weight, global_weight: of the three losses (the concept loss is summed over concepts).
        flip_samples, flip_concepts: share of rows and of columns of the true concepts that are flipped before E_cy
            sees them in training.
        inference_weights: of E_xy, E_xc and E_cy in prediction.
        intervention_weight: of E_cy, alone, when y is found anew after a correction.
        steps: Adam steps of a prediction, at rate `inference_lr` (or two rates: of the class, of the concepts).
        patience, delta: stop as the released code does (see above); None takes all steps.
        upstream_order: the released reading of the concept table.
    """

    costly = True

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str],
        concept_groups: Groups = (),
        hidden: int = 512,
        dropout: float = 0.2,
        class_weight: float = 3.0,
        concept_weight: float = 1.0,
        global_weight: float = 1.0,
        flip_samples: float = 0.2,
        flip_concepts: float = 0.2,
        inference_weights: Sequence[float] = (1.0, 1.0, 0.01),
        intervention_weight: float = 3.0,
        steps: int = 100,
        inference_lr: float | Sequence[float] = 0.1,
        patience: int | None = None,
        delta: float = 1.0,
        upstream_order: bool = False,
    ):
        super().__init__()
        if not concept_names:
            raise ValueError(NO_CONCEPTS)
        self.backbone = backbone
        self.concept_names = tuple(concept_names)
        self.concept_groups = complete_groups(self.concept_names, concept_groups)
        width, concepts = backbone.feature_dim, len(self.concept_names)
        self.class_weight, self.concept_weight, self.global_weight = class_weight, concept_weight, global_weight
        self.flip_samples, self.flip_concepts = flip_samples, flip_concepts
        self.inference_weights = tuple(inference_weights)
        self.intervention_weight = intervention_weight
        self.steps, self.patience, self.delta = steps, patience, delta
        self.inference_lr = (
            (inference_lr, inference_lr) if isinstance(inference_lr, float | int) else tuple(inference_lr)
        )
        self.upstream_order = upstream_order

        self.dropout = nn.Dropout(dropout)
        self.class_embedding = nn.Parameter(torch.randn(num_outputs, hidden))
        self.concept_embedding = nn.Parameter(torch.randn(2, concepts, hidden))
        self.class_query = nn.Linear(width, hidden)
        self.concept_query = nn.Linear(width, hidden)
        self.global_query = nn.Linear(concepts * hidden, hidden)
        self.class_energy_of = nn.Linear(hidden, 1)
        self.global_energy_of = nn.Linear(hidden, 1)
        bound = hidden**-0.5
        self.concept_energy_weight = nn.Parameter(torch.empty(concepts, hidden).uniform_(-bound, bound))
        self.concept_energy_bias = nn.Parameter(torch.empty(concepts).uniform_(-bound, bound))

    def class_energy(self, features: Tensor) -> Tensor:
        """E_xy of features (B, D) with every class: (B, M)."""
        query, head = self.dropout(self.class_query(features)), self.class_energy_of
        return energy_table(query, F.normalize(self.class_embedding, dim=-1), head.weight, head.bias)

    def concept_energy(self, features: Tensor) -> Tensor:
        """E_xc of features (B, D) with every concept, absent (0) and present (1): (B, K, 2)."""
        query = self.dropout(self.concept_query(features))
        states = F.normalize(self.concept_embedding, dim=-1)
        # one row per (state, concept): each concept has its own weight and bias
        weighted = (self.concept_energy_weight * (1 + states)).flatten(0, 1)
        table = F.relu(query) @ weighted.mT
        return table.unflatten(-1, states.shape[:2]).mT + self.concept_energy_bias[:, None]

    def global_energy(self, concepts: Tensor) -> Tensor:
        """E_cy of concepts (B, K) in {0, 1} with every class: (B, M)."""
        query, head = self.concepts_query(concepts), self.global_energy_of
        return energy_table(query, F.normalize(self.class_embedding, dim=-1), head.weight, head.bias)

    def concepts_query(self, concepts: Tensor) -> Tensor:
        """P [v_1 .. v_K] of hard concepts (B, K): (B, H). Each state of each concept is projected once."""
        absent, present = self.concept_embedding.flip(0) if self.upstream_order else self.concept_embedding
        blocks = self.global_query.weight.unflatten(1, absent.shape)
        nothing = torch.einsum("ikh,kh->i", blocks, absent) + self.global_query.bias
        return nothing + (concepts > 0.5).to(absent) @ torch.einsum("ikh,kh->ki", blocks, present - absent)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, D). While training, predictions are the classes and states of least energy; in evaluation they
        come from `infer`, whose logits of y are `prediction`.

        Raises:
            ValueError: while the model is traced for export: a descent is no feed-forward graph.
        """
        extras = {"class_energy": self.class_energy(features), "concept_energy": self.concept_energy(features)}
        if exporting():
            raise ValueError(f"its prediction is a descent of {self.steps} steps along gradients of an energy")
        if self.training:
            concepts = (-extras["concept_energy"]).softmax(-1)[..., 1]
            return Output(-extras["class_energy"], concepts=concepts, latent=concepts, extras=extras)
        y_logits, c_logits, _ = self.infer(features)
        concepts = latent = c_logits.softmax(-1)[..., 1]
        if intervene is not None:
            touched = intervene.mask.to(concepts.device).expand_as(concepts).any(-1)
            if touched.any():
                corrected, latent = self._correct(features, c_logits, concepts, intervene)
                y_logits = torch.where(touched[:, None], corrected, y_logits)
        return Output(y_logits, concepts=concepts, latent=latent, extras=extras)

    def _correct(
        self, features: Tensor, c_logits: Tensor, concepts: Tensor, intervene: Intervention
    ) -> tuple[Tensor, Tensor]:
        """Clamp corrected concepts to logits of +-5 and find y anew from the concepts alone."""
        values = intervene.values.to(concepts).expand_as(concepts)
        mask = intervene.mask.to(concepts.device).expand_as(concepts)
        clamped = torch.stack((0.5 - values, values - 0.5), dim=-1) * 2 * CLAMP
        c_logits = torch.where(mask[..., None], clamped, c_logits)
        y_logits, c_logits, _ = self.infer(features, weights=(0.0, 0.0, self.intervention_weight), c_logits=c_logits)
        return y_logits, intervene.apply(concepts)

    def infer(
        self,
        features: Tensor,
        *,
        weights: Sequence[float] | None = None,
        c_logits: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, int]:
        """Descend the joint energy from logits of 0: logits of y (B, M), of c (B, K, 2), and the steps taken.

        Args:
            weights: of E_xy, E_xc and E_cy; default `inference_weights`.
            c_logits: where the concepts start.
        """
        weights = weights or self.inference_weights
        with torch.inference_mode(False), torch.no_grad():
            landscape = Landscape(self, features)
            y = torch.zeros_like(landscape.class_slope)
            c = torch.zeros_like(landscape.concept_slope) if c_logits is None else c_logits.clone()
        with torch.inference_mode(False), torch.enable_grad():
            moving = [y.requires_grad_(), c.requires_grad_()] if weights[1] else [y.requires_grad_()]
            # the released descent is of the batch's mean, beside whose gradients the same epsilon is larger
            eps = 1e-8 if self.patience is None else 1e-8 * len(features)
            descent = [Adam(logits, lr=lr, eps=eps) for logits, lr in zip(moving, self.inference_lr)]
            best, waited, step = math.inf, 0, 0
            for step in range(1, self.steps + 1):  # noqa: B007
                of_class = landscape.of_class(y)
                total = weights[0] * of_class.sum() + weights[2] * landscape.of_both(y, c).sum()
                if weights[1]:
                    total = total + weights[1] * landscape.of_concepts(c).sum()
                for adam, gradient in zip(descent, torch.autograd.grad(total, moving)):
                    adam.step(gradient)
                if self.patience is None:
                    continue
                check = float(of_class.detach().mean())
                best, waited = (check, 0) if check < best - self.delta else (best, waited + 1)
                if waited >= self.patience:
                    break
        return y.detach(), c.detach(), step

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """class_weight * CE(-E_xy, y) + concept_weight * sum_k CE(-E_xc[k], c_k) + global_weight * CE(-E_cy, y)."""
        concepts = (batch["concepts"] > 0.5).long()
        seen = self.flip(concepts) if self.training else concepts
        terms = {
            "class": F.cross_entropy(-output.extras["class_energy"], batch["label"]),
            "concept": F.cross_entropy(-output.extras["concept_energy"].mT, concepts, reduction="none").mean(0).sum(),
            "global": F.cross_entropy(-self.global_energy(seen), batch["label"]),
        }
        weighted = self.class_weight * terms["class"] + self.concept_weight * terms["concept"]
        return terms | {"loss": weighted + self.global_weight * terms["global"]}

    def flip(self, concepts: Tensor) -> Tensor:
        """Flip the same random columns (ceil(flip_concepts * K)) in random rows (ceil(flip_samples * B)) of (B, K)."""
        rows = torch.randperm(len(concepts), device=concepts.device)[: math.ceil(self.flip_samples * len(concepts))]
        columns = torch.randperm(concepts.shape[1], device=concepts.device)
        columns = columns[: math.ceil(self.flip_concepts * concepts.shape[1])]
        flipped = concepts.clone()
        flipped[rows[:, None], columns] = 1 - flipped[rows[:, None], columns]
        return flipped

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys of xmed-lab/ECBM: per-concept classifiers are stacked; `fc_c`, `y_prob` and `c_prob` are unused."""
        concepts = sum(key.startswith("classifier_xc.") and key.endswith(".weight") for key in state)
        renamed = {
            "xy_fc1": "class_query",
            "xc_fc1": "concept_query",
            "concept_proj": "global_query",
            "classifier_xy": "class_energy_of",
            "classifier_cy": "global_energy_of",
        }
        ours: dict[str, Any] = {
            "class_embedding": state["y_embedding"],
            "concept_embedding": state["c_embedding"].unflatten(0, (2, concepts)),
            "concept_energy_weight": torch.cat([state[f"classifier_xc.{k}.weight"] for k in range(concepts)]),
            "concept_energy_bias": torch.cat([state[f"classifier_xc.{k}.bias"] for k in range(concepts)]),
        }
        for old, new in renamed.items():
            ours |= {f"{new}.{part}": state[f"{old}.{part}"] for part in ("weight", "bias")}
        return ours
