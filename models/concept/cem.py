"""Concept embedding model (Espinosa Zarlenga, Barbiero, Ciravegna, Marra, et al., NeurIPS 2022, arXiv 2209.09056).

Every concept is a vector that lies between one that means "present" and one that means "absent":

    ctx_k = LeakyReLU(W_k h + b_k) in R^2m,   its halves are c+_k and c-_k
    p_k   = sigmoid(s(ctx_k))                 s shared by all concepts
    c_k   = p_k c+_k + (1 - p_k) c-_k
    y     = f([c_1 ... c_K])                  linear, or an MLP

RandInt: in training, true concepts take the place of p_k in the mixing with probability `randint_prob`, so that the
head learns to heed corrections; the concept loss always sees the prediction.

Where the released code (mateoespinosa/cem, MIT) differs from the default here: it draws one RandInt mask for the whole
batch (`randint_mask="batch"`). A CEM hardly reacts to wrong corrections: its vectors carry more than the concepts.
"""

import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.models.backbone import Backbone, activation_named
from zoo.models.concept.base import ConceptModel, Groups, Imbalance, label_head
from zoo.models.contract import Batch, Intervention, Output


class CEM(ConceptModel):
    """Images to concept vectors to a label.

    Args:
        embedding_dim: m, the length of a concept's vector.
        shared_score: one s for all concepts, or one each.
        randint_prob: chance of a true concept in training, 0 for none.
        randint_mask: drawn anew for every "sample", or once for a "batch".
        head_hidden: widths of the head's hidden layers.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str],
        concept_groups: Groups = (),
        task: Literal["classification", "regression"] = "classification",
        embedding_dim: int = 16,
        embedding_activation: str = "LeakyReLU",
        shared_score: bool = True,
        concept_loss_weight: float = 5.0,
        imbalance: Imbalance = "none",
        randint_prob: float = 0.25,
        randint_mask: Literal["sample", "batch"] = "sample",
        head_hidden: Sequence[int] = (),
        head_activation: str = "LeakyReLU",
    ):
        super().__init__(
            num_outputs=num_outputs,
            concept_names=concept_names,
            concept_groups=concept_groups,
            task=task,
            imbalance=imbalance,
        )
        if not 0 <= randint_prob <= 1:
            raise ValueError(f"randint_prob={randint_prob}: give a probability, 0 to 1")
        self.embedding_dim, self.concept_loss_weight = embedding_dim, concept_loss_weight
        self.randint_prob, self.randint_mask = randint_prob, randint_mask
        concepts = len(self.concept_names)
        self.backbone = backbone
        self.context = nn.Linear(backbone.feature_dim, concepts * 2 * embedding_dim)
        self.activation = activation_named(embedding_activation)
        self.score = nn.Linear(2 * embedding_dim, 1 if shared_score else concepts)
        width = concepts * embedding_dim
        self.head = label_head(width, num_outputs, hidden=head_hidden, activation=head_activation)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        context = self.activation(self.context(features)).unflatten(1, (len(self.concept_names), -1))  # (B, K, 2m)
        # a shared score broadcasts over the concepts
        concept_logits = (context * self.score.weight).sum(-1) + self.score.bias
        concepts = concept_logits.sigmoid()
        mixing = concepts if intervene is None else intervene.apply(concepts)
        present, absent = context.chunk(2, dim=2)
        embeddings = mixing[..., None] * present + (1 - mixing[..., None]) * absent
        latent = embeddings.flatten(1)
        extras = {"concept_logits": concept_logits, "concept_embeddings": embeddings}
        return Output(self.head(latent), concepts=concepts, latent=latent, extras=extras)

    def forward_batch(self, batch: Batch, intervene: Intervention | None = None) -> Output:
        """In training, with RandInt: an intervention with the true concepts at random places."""
        if self.training and intervene is None and self.randint_prob and "concepts" in batch:
            truth = batch["concepts"]
            drawn = torch.rand_like(truth if self.randint_mask == "sample" else truth[0], dtype=torch.float32)
            intervene = Intervention(drawn < self.randint_prob, truth)
        return super().forward_batch(batch, intervene)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """`task`, `concept` (mean over concepts), and task + concept_loss_weight * concept."""
        concept = self.concept_entropy(output.extras["concept_logits"], batch).mean()
        task = self.task_loss(output.prediction, batch)
        return {"loss": task + self.concept_loss_weight * concept, "task": task, "concept": concept}

    def sum_by_concept(self, products: Tensor) -> Tensor:
        """A concept's share is that of its whole vector."""
        return products.unflatten(1, (len(self.concept_names), -1)).sum(2)

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From mateoespinosa/cem, which keeps one layer a concept."""
        parts: dict[tuple[str, int], Tensor] = {}
        converted: dict[str, Tensor] = {}
        for key, value in state.items():
            if match := re.fullmatch(r"concept_(context|prob)_generators\.(\d+)(?:\.0)?\.(weight|bias)", key):
                name = "context" if match[1] == "context" else "score"
                parts[f"{name}.{match[3]}", int(match[2])] = value
            else:
                converted[re.sub(r"^c2y_model\.", "head.", re.sub(r"^pre_concept_model\.", "backbone.net.", key))] = (
                    value
                )
        for name in {name for name, _ in parts}:
            converted[name] = torch.cat([parts[each] for each in sorted(parts) if each[0] == name])
        return converted
