"""Concept bottleneck model (Koh, Nguyen, Tang, Mussmann, Pierson, Kim, Liang, ICML 2020, arXiv 2007.04612).

    a = g(x)               concept logits, one linear layer on the backbone's features; with pool="max" the largest
                           over positions, a_k = b_k + max_s <w_k, x_s>, which tells where a concept was found
    z = sigmoid(a) or a    the bottleneck, and nothing else unless `extra_dims` are asked for
    y = f(z)               linear, or an MLP

    independent  g learns the concepts, f learns the label from the TRUE concepts
    sequential   g learns the concepts, then f learns the label from the predicted ones
    joint        min CE(y) + lambda * sum_k BCE_k

Where the released code (yewsiang/ConceptBottleneck, MIT) differs from the default here:
- its bottleneck is the raw logits (`bottleneck="logit"`); logits leak information beyond the concepts, so that
  correcting them helps less or hurts (on "dot" data, whose concepts say nothing about the label, logits predict it);
- its imbalance weight multiplies positives and negatives alike (`imbalance="weight"`);
- its concept loss is summed and the total divided by 1 + lambda * K (`concept_reduction="normalized_sum"`).
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.kernels.max_similarity import max_similarity
from zoo.models.backbone import Backbone, FeatureMap, activation_named
from zoo.models.concept.base import ConceptModel, Groups, Imbalance, Reduction, label_head, reduce_concepts
from zoo.models.contract import Batch, Intervention, Output, Stage


class CBM(ConceptModel):
    """Images to concepts to a label.

    Args:
        training: "joint", "sequential" or "independent".
        pool: what a concept logit reads of the backbone: "mean", its pooled features, or "max", the position of its
            feature map that shows the concept best. Then `extras["concept_places"]` (B, K, 2) holds the centres of
            these positions, as shares of the height and the width.
        bottleneck: what the head sees of a concept: "sigmoid", "logit" or "relu".
        concept_loss_weight: lambda.
        concept_reduction: over concepts, "mean", "sum", or "normalized_sum" (the sum, and the total over 1 + lambda K).
        head_hidden: widths of the head's hidden layers.
        extra_dims: further entries of the bottleneck without a meaning, after `extra_activation`.
        percentiles: what absent and present mean in a logit or relu bottleneck, when a person sets a concept there:
            these percentiles of its values on the training data, read off by `finish_stage`.

    Raises:
        ValueError: no concepts in the data, or independent training with another bottleneck than sigmoid.
    """

    concept_absent: Tensor
    concept_present: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str],
        concept_groups: Groups = (),
        task: Literal["classification", "regression"] = "classification",
        training: Literal["joint", "sequential", "independent"] = "joint",
        pool: Literal["mean", "max"] = "mean",
        bottleneck: Literal["sigmoid", "logit", "relu"] = "sigmoid",
        concept_loss_weight: float = 1.0,
        concept_reduction: Reduction = "sum",
        imbalance: Imbalance = "none",
        head_hidden: Sequence[int] = (),
        head_activation: str = "LeakyReLU",
        extra_dims: int = 0,
        extra_activation: str = "LeakyReLU",
        percentiles: Sequence[float] = (5.0, 95.0),
    ):
        super().__init__(
            num_outputs=num_outputs,
            concept_names=concept_names,
            concept_groups=concept_groups,
            task=task,
            imbalance=imbalance,
        )
        if training == "independent" and bottleneck != "sigmoid":
            raise ValueError(
                f"training=independent teaches the head on 0 and 1, bottleneck={bottleneck} cannot: take sigmoid"
            )
        if concept_loss_weight < 0:
            raise ValueError(f"concept_loss_weight={concept_loss_weight}: give a weight of at least 0")
        if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError(f"percentiles={list(percentiles)}: give two rising ones from 0 to 100: [5, 95]")
        self.training_mode, self.bottleneck_mode = training, bottleneck
        self.concept_loss_weight, self.concept_reduction = concept_loss_weight, concept_reduction
        self.percentiles = percentiles
        concepts = len(self.concept_names)
        self.pool = pool
        self.backbone = FeatureMap(backbone) if pool == "max" else backbone
        self.concept_layer = nn.Linear(self.backbone.feature_dim, concepts)
        self.extra_layer = nn.Sequential()
        if extra_dims:
            self.extra_layer.append(nn.Linear(self.backbone.feature_dim, extra_dims))
            self.extra_layer.append(activation_named(extra_activation))
        self.head = label_head(concepts + extra_dims, num_outputs, hidden=head_hidden, activation=head_activation)
        # until they are fitted, a logit bottleneck is set to the logits of the percentiles themselves
        inner = [min(max(p, 0.1), 99.9) for p in percentiles]
        low, high = [math.log(p / (100 - p)) for p in inner] if bottleneck == "logit" else (0.0, 1.0)
        self.register_buffer("concept_absent", torch.full((concepts,), low))
        self.register_buffer("concept_present", torch.full((concepts,), high))

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        extras: dict[str, Tensor] = {}
        if self.pool == "max":
            concept_logits, extras["concept_places"] = self.best_position(features)
            features = features.mean(dim=(2, 3))
        else:
            concept_logits = self.concept_layer(features)
        extras["concept_logits"] = concept_logits
        bottleneck = self.bottleneck(concept_logits)
        if intervene is not None:
            bottleneck = intervene.apply(bottleneck, self.concept_present, self.concept_absent)
        latent = bottleneck
        if len(self.extra_layer):
            extras["extra"] = self.extra_layer(features)
            latent = torch.cat([bottleneck, extras["extra"]], dim=1)
        return Output(self.head(latent), concepts=concept_logits.sigmoid(), latent=latent, extras=extras)

    def best_position(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, H', W') -> concept logits (B, K), and where they were found, (B, K, 2)."""
        positions = feature_map.flatten(2).transpose(1, 2)
        logits, at = max_similarity(positions, self.concept_layer.weight, self.concept_layer.bias)
        assert at is not None
        height, width = feature_map.shape[2:]
        return logits, torch.stack([(at // width + 0.5) / height, (at % width + 0.5) / width], dim=2)

    def bottleneck(self, concept_logits: Tensor) -> Tensor:
        """What the head sees of the concepts."""
        if self.bottleneck_mode == "logit":
            return concept_logits
        return concept_logits.sigmoid() if self.bottleneck_mode == "sigmoid" else concept_logits.relu()

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """`task`, `concept`, and (task + lambda * concept), over 1 + lambda * K where the sum is normalised."""
        concept = reduce_concepts(self.concept_entropy(output.extras["concept_logits"], batch), self.concept_reduction)
        task = self.task_loss(output.prediction, batch)
        total = task + self.concept_loss_weight * concept
        if self.concept_reduction == "normalized_sum":
            total = total / (1 + self.concept_loss_weight * len(self.concept_names))
        return {"loss": total, "task": task, "concept": concept}

    def concept_stage(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The concept predictor's loss before the label is learnt."""
        concept = reduce_concepts(self.concept_entropy(output.extras["concept_logits"], batch), self.concept_reduction)
        return {"loss": concept, "concept": concept}

    def label_stage(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The head's loss, on predicted concepts (sequential) or on the true ones (independent)."""
        prediction = output.prediction
        if self.training_mode == "independent":
            parts = [batch["concepts"].to(prediction), *([output.extras["extra"]] if "extra" in output.extras else [])]
            prediction = self.head(torch.cat(parts, dim=1))
        task = self.task_loss(prediction, batch)
        return {"loss": task, "task": task}

    def stages(self) -> list[Stage]:
        """A head that reads numbers in [0, 1] needs weights of several units, so what contains it learns faster."""
        if self.training_mode == "joint":
            return [Stage(lr_scale=3.0)]
        return [
            Stage("concepts", trains=("backbone", "concept_layer"), loss="concept_stage"),
            Stage("label", trains=("head", "extra_layer"), loss="label_stage", lr_scale=10.0),
        ]

    @torch.no_grad()
    def finish_stage(self, stage: Stage, datamodule: Any) -> None:
        """Read off what present and absent mean in the bottleneck, once the concept predictor has learnt."""
        if self.bottleneck_mode == "sigmoid" or stage.name == "label":
            return
        self.eval()
        device = self.concept_absent.device
        logits = [
            self.forward_batch({key: value.to(device) for key, value in batch.items()}).extras["concept_logits"]
            for batch in datamodule.train_dataloader()
        ]
        self.fit_percentiles(torch.cat(logits))

    def fit_percentiles(self, concept_logits: Tensor) -> None:
        """Let absent and present mean `percentiles` of what the head sees of each concept; concept_logits (N, K)."""
        share = torch.tensor(tuple(self.percentiles), dtype=torch.float64, device=concept_logits.device) / 100
        for index, column in enumerate(self.bottleneck(concept_logits).double().unbind(1)):
            absent, present = torch.quantile(column, share)
            self.concept_absent[index], self.concept_present[index] = absent, present

    @classmethod
    def convert_state(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From yewsiang/ConceptBottleneck (one layer a concept; its auxiliary branch is left out) and from
        mateoespinosa/cem (whose backbone ends in the concept layer)."""
        converted: dict[str, Tensor] = {}
        single: dict[tuple[str, int], Tensor] = {}
        for key, value in state.items():
            if match := re.fullmatch(r"first_model\.(?:all_fc|main)\.(\d+)(?:\.fc)?\.(weight|bias)", key):
                single[match[2], int(match[1])] = value
            elif not key.startswith(("first_model.aux", "first_model.AuxLogits")):
                converted[renamed(key)] = value
        for kind in {kind for kind, _ in single}:
            converted[f"concept_layer.{kind}"] = torch.cat([single[each] for each in sorted(single) if each[0] == kind])
        return converted


def renamed(key: str) -> str:
    """Our name of a tensor of either released code."""
    rules = (
        (r"^sec_model\.linear\.", "head.0."),
        (r"^sec_model\.linear2\.", "head.2."),
        (r"^first_model\.", "backbone.net."),
        (r"^c2y_model\.", "head."),
        (r"^x2c_model\.fc1?\.", "concept_layer."),
        (r"^x2c_model\.", "backbone.net."),
        (r"^active_values$", "concept_present"),
        (r"^inactive_values$", "concept_absent"),
    )
    return next((re.sub(theirs, ours, key) for theirs, ours in rules if re.search(theirs, key)), key)
