"""Discrete key-value bottleneck (DKVB): Trauble et al., ICML 2023, arXiv 2207.11240.

A frozen encoder's feature is cut or projected into C heads of width k; each head fetches the value of the nearest of J
keys in its codebook, and the logits are the mean of the fetched values. Keys are fitted without labels and then rest;
only values learn, and only those that were fetched, so that learning new classes leaves old pairs alone.

    features (B, d) --split--> heads (B, C, n, k) --nearest keys--> code (B, C, topk, n) --fetch, vote--> logits (B, M)

Where the released code differs from what is computed here:
- A pair that training never selected scores the batch's minimum in evaluation, which ties with the farthest pair in
  use; here it scores minus infinity, so that a sample's result does not depend on its batch.
- Its k-means start forgets the running sums, so that the first EMA update shrinks all keys; here sums follow the keys.
- A key revived by expiry is overwritten by its stale sum in the next step; here its sum and size restart with it.
- `learned_projection` never receives a gradient through the arg-max and is left out.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.dispatch import exporting
from zoo.kernels.kmeans import assign, kmeans
from zoo.models.backbone import Backbone
from zoo.models.contract import Batch, Intervention, Output, Stage, ZooModel

FAR = 1e12
"""Where keys stand that may not be chosen."""


def nearest(heads: Tensor, keys: Tensor, *, topk: int = 1, allowed: Tensor | None = None) -> Tensor:
    """Indices of the `topk` nearest keys by squared Euclidean distance, nearest first, the lowest index on ties.

    Args:
        heads: (B, C, n, k). keys: (C, J, k).
        allowed: (C, J) false where a key may not be chosen while an allowed one remains.

    Returns:
        (B, C, topk, n) int64.
    """
    queries = heads.transpose(0, 1).flatten(1, 2)
    if allowed is not None:
        keys = keys.masked_fill(~allowed[..., None], FAR)
    if topk == 1:
        found = assign(queries, keys)[0].long()[..., None]
    elif exporting():
        found = _closeness(queries, keys).topk(topk, dim=-1).indices
    else:
        # one codebook at a time: all their distances together would take gigabytes
        found = torch.cat([_sorted(*pair)[..., :topk] for pair in zip(queries.split(1), keys.split(1))])
    return found.unflatten(1, (heads.shape[0], heads.shape[2])).permute(1, 0, 3, 2)


def _closeness(queries: Tensor, keys: Tensor) -> Tensor:
    """-|q - key|^2 / 2 up to |q|^2 / 2, which is the same for all keys."""
    return queries @ keys.mT - 0.5 * keys.square().sum(-1)[..., None, :]


def _sorted(queries: Tensor, keys: Tensor) -> Tensor:
    return _closeness(queries, keys).sort(dim=-1, descending=True, stable=True).indices


def fetch(table: Tensor, indices: Tensor) -> Tensor:
    """Rows of table (C, J, V) at indices (B, C, topk, n): (B, C, topk, n, V)."""
    codebook = torch.arange(len(table), device=indices.device)[:, None, None]
    return table[codebook, indices]


class DKVB(ZooModel):
    """Discrete key-value bottleneck with the paper's voting decoder.

    Args:
        backbone: gives features (B, d); it does not learn.
        codebooks: C. pairs: J for each codebook. key_dim: k, for "chunk" it has to be d / C.
        topk: values fetched for each head in training and evaluation (keys are fitted with one).
        splitter: "random_projection" (fixed, columns of norm 1) or "chunk" (contiguous slices).
        key_start: "normal" or "kmeans" (10 Lloyd steps on the first batches).
        key_epochs: passes of EMA over the training images. decay, eps: of the EMA.
        expiry: keys used less than `expiry` times as often as the mean are replaced by a head of the batch; 0 never.
        mask_unused: pairs that training never selected are not fetched in evaluation.

    Raises:
        ValueError: "chunk" does not divide the features.
    """

    keys: Tensor
    key_size: Tensor
    key_sum: Tensor
    counts: Tensor
    projection: Tensor | None

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        codebooks: int = 256,
        pairs: int = 4096,
        key_dim: int = 14,
        topk: int = 1,
        splitter: Literal["random_projection", "chunk"] = "random_projection",
        key_start: Literal["normal", "kmeans"] = "normal",
        key_epochs: int = 10,
        decay: float = 0.95,
        eps: float = 1e-5,
        expiry: float = 0.1,
        label_smoothing: float = 0.1,
        mask_unused: bool = True,
    ):
        super().__init__()
        width = backbone.feature_dim
        if splitter == "chunk" and width != codebooks * key_dim:
            fits = f"key_dim={width // codebooks}" if width % codebooks == 0 else f"codebooks that divide {width}"
            raise ValueError(
                f"splitter=chunk: codebooks x key_dim = {codebooks} x {key_dim} is not the {width} features: set {fits}"
            )
        self.backbone = backbone
        self.topk, self.key_start, self.key_epochs = topk, key_start, key_epochs
        self.decay, self.eps, self.expiry = decay, eps, expiry
        self.label_smoothing, self.mask_unused = label_smoothing, mask_unused
        projection = F.normalize(torch.randn(codebooks, width, key_dim), dim=1)
        self.register_buffer("projection", projection if splitter == "random_projection" else None)
        self.register_buffer("keys", torch.randn(codebooks, pairs, key_dim))
        self.register_buffer("key_size", torch.zeros(codebooks, pairs))
        self.register_buffer("key_sum", self.keys.clone())
        self.register_buffer("counts", torch.zeros(codebooks, pairs))
        self.values = nn.Parameter(torch.zeros(codebooks, pairs, num_outputs))

    def split(self, features: Tensor) -> Tensor:
        """features (B, d) or (B, n, d) -> heads (B, C, n, k)."""
        tokens = features[:, None] if features.dim() == 2 else features
        if self.projection is None:
            return tokens.unflatten(-1, (len(self.keys), -1)).transpose(1, 2)
        return torch.einsum("bnd,cdk->bcnk", tokens, self.projection)

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        """features (B, d) or (B, n, d). `code` holds the chosen pairs (B, C, topk, n), `latent` their values."""
        allowed = None if self.training or not self.mask_unused else (self.counts > 0) | (self.counts.sum() == 0)
        code = nearest(self.split(features), self.keys, topk=self.topk, allowed=allowed)
        if self.training:
            self.counts += self._tally(code)
        latent = fetch(self.values, code)
        return Output(latent.sum(2).mean(dim=(1, 2)), latent=latent, code=code)

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        loss = F.cross_entropy(output.prediction, batch["label"], label_smoothing=self.label_smoothing)
        return {"cross_entropy": loss, "loss": loss}

    def stages(self) -> list[Stage]:
        return [Stage("values", trains=("values",))]

    @torch.no_grad()
    def prepare(self, datamodule: Any) -> None:
        """Fit the keys to the training images: `key_epochs` passes of EMA, after k-means where it is wanted."""
        self.eval()
        if self.key_start == "kmeans":
            self.start_kmeans(self._first_heads(datamodule))
        for _ in range(self.key_epochs):
            for heads in self._heads(datamodule):
                self.update_keys(heads)

    def _heads(self, datamodule: Any) -> Iterator[Tensor]:
        for batch in datamodule.train_dataloader():
            cached = batch.get("features")
            features = self.backbone(batch["image"].to(self.keys)) if cached is None else cached.to(self.keys)
            yield self.split(features)

    def _first_heads(self, datamodule: Any) -> Tensor:
        """Enough heads to give each key ten, where the data hold as many."""
        found: list[Tensor] = []
        for heads in self._heads(datamodule):
            found.append(heads)
            if sum(len(part) * part.shape[2] for part in found) >= 10 * self.keys.shape[1]:
                break
        return torch.cat(found)

    @torch.no_grad()
    def start_kmeans(self, heads: Tensor, *, steps: int = 10) -> None:
        """Lloyd's algorithm in each codebook on heads (B, C, n, k), from random ones; empty clusters keep their key."""
        points = heads.transpose(0, 1).flatten(1, 2)
        chosen = torch.rand(points.shape[:2], device=points.device).argsort(dim=1)[:, : self.keys.shape[1]]
        self.keys[:, : chosen.shape[1]] = points.gather(1, chosen[..., None].expand(-1, -1, points.shape[-1]))
        found = kmeans(points, init=self.keys, iterations=steps, tolerance=0.0)
        self.keys.copy_(found.centroids)
        self.key_size.copy_(found.counts)
        self.key_sum.copy_(self.keys * self.key_size[..., None])

    @torch.no_grad()
    def update_keys(self, heads: Tensor) -> None:
        """One EMA step on heads (B, C, n, k).

        size_j <- g size_j + (1 - g) count_j,  sum_j <- g sum_j + (1 - g) sum of the heads of j,
        key_j = sum_j / [(size_j + eps) / (sum size + J eps) * sum size].
        """
        count, total = self._assign(heads)
        self.key_size.lerp_(count, 1 - self.decay)
        self.key_sum.lerp_(total, 1 - self.decay)
        whole, pairs = self.key_size.sum(-1, keepdim=True), self.keys.shape[1]
        smoothed = (self.key_size + self.eps) / (whole + pairs * self.eps) * whole
        self.keys.copy_(self.key_sum / smoothed[..., None])
        if self.expiry:
            self._revive(heads, threshold=self.expiry * heads.shape[0] * heads.shape[2] / pairs)

    def _assign(self, heads: Tensor) -> tuple[Tensor, Tensor]:
        """How many heads each key is nearest to (C, J), and their sum (C, J, k)."""
        code = nearest(heads, self.keys)
        rows = code[:, :, 0].transpose(0, 1).flatten(1)
        total = torch.zeros_like(self.keys)
        total.scatter_add_(1, rows[..., None].expand(-1, -1, heads.shape[-1]), heads.transpose(0, 1).flatten(1, 2))
        return self._tally(code), total

    def _tally(self, code: Tensor) -> Tensor:
        rows = code.transpose(0, 1).flatten(1)
        return torch.zeros_like(self.key_size).scatter_add_(1, rows, torch.ones_like(rows, dtype=self.key_size.dtype))

    def _revive(self, heads: Tensor, *, threshold: float) -> None:
        dead = self.key_size < threshold
        points = heads.transpose(0, 1).flatten(1, 2)
        drawn = torch.randint(points.shape[1], dead.shape, device=dead.device)
        fresh = points.gather(1, drawn[..., None].expand(-1, -1, points.shape[-1]))
        self.keys.copy_(torch.where(dead[..., None], fresh, self.keys))
        self.key_size.copy_(torch.where(dead, threshold, self.key_size))
        self.key_sum.copy_(torch.where(dead[..., None], fresh * threshold, self.key_sum))
