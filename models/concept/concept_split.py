"""A concept bottleneck whose quantised scores are what crosses the link of a split model: a readable wire.

    image --backbone, concept layer--> p in [0, 1]^K --round--> code == link ==> code / (2^b_k - 1) --> y
          \\_______________________ head, device _____________/          \\_______ tail, server _______/

The zoo's own; in no paper. Every integer on the wire is a named concept's score on 2^b_k levels, so what left the
device can be read, and a correction is made on the server. How much leaves is trained for: the rate is the expected
length of the code under stochastic rounding and a learned table P_k of each concept's levels (the entropy of the scores
once the table fits),

    L = CE(y) + concept_loss_weight * sum_k BCE(p_k, c_k) + rate_weight * mean R
    R = -sum_k E log2 P_k(round(p_k (2^b_k - 1)))

and its gradient pushes scores towards levels that are already frequent, above all 0: absent concepts cost little.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zoo.models.backbone import Backbone
from zoo.models.concept.base import ConceptModel, Groups, Imbalance, linear_contributions, reduce_concepts
from zoo.models.concept.concept_wire import pack, pack_sparse
from zoo.models.contract import Batch, Intervention, Output, Stage


class Message(NamedTuple):
    """What crosses the link: `code` (B, K) uint8, the level of each concept."""

    code: Tensor


class Head(nn.Module):
    """The device's part: images (B, C, H, W) to a `Message`."""

    def __init__(self, backbone: nn.Module, concept_layer: nn.Module, top: Tensor):
        super().__init__()
        self.backbone, self.concept_layer = backbone, concept_layer
        self.register_buffer("top", top)

    def forward(self, images: Tensor) -> Message:
        return Message(quantize(self.concept_layer(self.backbone(images)).sigmoid(), self.get_buffer("top")))


class Tail(nn.Module):
    """The server's part: the code of a `Message` to logits (B, M)."""

    def __init__(self, label_layer: nn.Module, top: Tensor):
        super().__init__()
        self.label_layer = label_layer
        self.register_buffer("top", top)

    def forward(self, code: Tensor) -> Tensor:
        return self.label_layer(dequantize(code, self.get_buffer("top")))


def quantize(scores: Tensor, top: Tensor) -> Tensor:
    """Levels (B, K) uint8 of scores in [0, 1]; top (K,) is the highest level of each concept, 2^b - 1."""
    return torch.round(scores * top).to(torch.uint8)


def dequantize(code: Tensor, top: Tensor) -> Tensor:
    return code.to(top.dtype) / top


class ConceptSplit(ConceptModel):
    """A concept bottleneck cut at its concepts; `tail(*head(images))` is its prediction.

    Args:
        bits: of a concept's code, 1 to 8, one number or one for each concept.
        rate_weight: weight of the rate in the loss, for each bit.
        concept_loss_weight, concept_groups, imbalance: as in the concept bottleneck model.

    Shapes: code (B, K) uint8; latent and concepts (B, K) as decoded from it; extras `concept_logits` and `rate` (B,)
    in bits.

    Raises:
        ValueError: bits out of range or not one for each concept.
    """

    top: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        concept_names: Sequence[str],
        concept_groups: Groups = (),
        task: Literal["classification", "regression"] = "classification",
        bits: int | Sequence[int] = 2,
        rate_weight: float = 0.001,
        concept_loss_weight: float = 1.0,
        imbalance: Imbalance = "none",
    ):
        super().__init__(
            num_outputs=num_outputs,
            concept_names=concept_names,
            concept_groups=concept_groups,
            task=task,
            imbalance=imbalance,
        )
        count = len(self.concept_names)
        self.bits = [bits] * count if isinstance(bits, int) else [int(each) for each in bits]
        if len(self.bits) != count or not all(1 <= each <= 8 for each in self.bits):
            raise ValueError(f"bits={bits}: give one number from 1 to 8, or one for each of the {count} concepts")
        self.rate_weight, self.concept_loss_weight = rate_weight, concept_loss_weight
        self.backbone = backbone
        self.concept_layer = nn.Linear(backbone.feature_dim, count)
        self.label_layer = nn.Linear(count, num_outputs)
        self.register_buffer("top", 2.0 ** torch.tensor(self.bits) - 1)
        self.level_logits = nn.Parameter(torch.zeros(count, 2 ** max(self.bits)))

    @property
    def head(self) -> Head:  # type: ignore[override]
        """The device's part; it shares this model's parameters."""
        return Head(self.backbone, self.concept_layer, self.top).train(self.training)

    @property
    def tail(self) -> Tail:
        """The server's part; it shares this model's parameters."""
        return Tail(self.label_layer, self.top).train(self.training)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, D). Training sends scores through the rounding with a straight-through gradient."""
        logits = self.concept_layer(features)
        scores = logits.sigmoid()
        code = quantize(scores, self.top)
        concepts = dequantize(code, self.top)
        rate = self.rate(scores if self.training else concepts)
        if self.training:
            concepts = scores + (concepts - scores).detach()
        latent = concepts if intervene is None else intervene.apply(concepts)
        extras = {"concept_logits": logits, "rate": rate}
        return Output(self.label_layer(latent), concepts=concepts, latent=latent, code=code, extras=extras)

    def rate(self, scores: Tensor) -> Tensor:
        """Expected bits (B,) of scores (B, K) under stochastic rounding; of decoded scores, the bits of their code."""
        levels = torch.arange(self.level_logits.shape[1], device=scores.device)
        valid = levels <= self.top[:, None]
        length = -self.level_logits.masked_fill(~valid, -torch.inf).log_softmax(-1) / np.log(2)
        place = scores * self.top
        low = place.detach().round(decimals=3).floor().clamp(min=0).long()
        high = torch.minimum(low + 1, self.top.long())
        share = place - low
        of_low, of_high = (length.expand(len(scores), -1, -1).gather(-1, at[..., None])[..., 0] for at in (low, high))
        return torch.where(high > low, (1 - share) * of_low + share * of_high, of_low).sum(-1)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """`task`, `concept`, `rate` (bits for an image), and their weighted sum."""
        concept = reduce_concepts(self.concept_entropy(output.extras["concept_logits"], batch), "sum")
        task, rate = self.task_loss(output.prediction, batch), output.extras["rate"].mean()
        total = task + self.concept_loss_weight * concept + self.rate_weight * rate
        return {"loss": total, "task": task, "concept": concept, "rate": rate}

    @torch.no_grad()
    def finish_stage(self, stage: Stage, datamodule: Any) -> None:
        """Set the tables to how often each level occurs on the training images, each counted once more."""
        self.eval()
        counts = torch.ones_like(self.level_logits)
        for batch in datamodule.train_dataloader():
            output = self.forward_batch({key: value.to(counts.device) for key, value in batch.items()})
            assert output.code is not None
            code = output.code.long().mT
            counts.scatter_add_(1, code, torch.ones_like(code, dtype=counts.dtype))
        self.level_logits.copy_(counts.log())

    def contributions(self, output: Output) -> Tensor:
        """(B, K, M): how much every concept, as received, adds to every logit."""
        return linear_contributions(output, self.label_layer.weight)

    def diagnostics(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Bytes of each image's message and its ideal length in bits."""
        sizes = self.code_bytes(output)
        return {"code_bytes": sizes["tensor"], "code_bytes_sparse": sizes["sparse"], "rate_bits": output.extras["rate"]}

    def sent(self, output: Output) -> dict[str, Any]:
        """What left the device for the first image: `bytes` in hexadecimal, as `pack` writes them, how many there are
        as `size`, and as `size_sparse` with absent concepts left out; `levels`, concept -> (level, highest level)."""
        assert output.code is not None
        code = output.code[0]
        message = pack(code, self.bits)
        levels = zip(self.concept_names, zip(code.tolist(), self.top.int().tolist()))
        sizes = {"size": len(message), "size_sparse": len(pack_sparse(code, self.bits))}
        return {"bytes": message.hex(), **sizes, "levels": dict(levels)}

    def code_bytes(self, output: Output) -> dict[str, Tensor]:
        """Bytes (B,) that cross the link for each image: `tensor` with `pack`, `sparse` with `pack_sparse`."""
        assert output.code is not None
        packed = {"tensor": pack, "sparse": pack_sparse}
        return {name: torch.tensor([len(way(code, self.bits)) for code in output.code]) for name, way in packed.items()}
