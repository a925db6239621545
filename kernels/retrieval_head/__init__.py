"""A classification head for very many classes: look into the few clusters of classes that a feature points at.

head = arrange(weight, balanced_clusters(weight, 16))         # once, weight (V, D)
score, label = retrieve(features, head, probes=64, k=5)       # exact logits of 64 x 16 classes instead of V
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.dispatch import exporting, runs_triton
from zoo.kernels.retrieval_head import aten, reference
from zoo.kernels.retrieval_head.clusters import balanced_clusters

__all__ = ["ClusteredHead", "Retrieved", "arrange", "balanced_clusters", "retrieve", "sample", "similarities"]


class ClusteredHead(NamedTuple):
    """rows (C, R, D) and classes (C, R) int64 of each cluster, -1 where a cluster has room left; directions (K, D) of
    length 1 and lengths (K,) of the means of the first K clusters; the other C - K are scored always."""

    rows: Tensor
    classes: Tensor
    directions: Tensor
    lengths: Tensor


class Retrieved(NamedTuple):
    """score (..., k), exact logits in float32 or wider; label (..., k) int64 (-1 where no class was probed)."""

    score: Tensor
    label: Tensor


@torch.no_grad()
def arrange(weight: Tensor, clusters: Tensor, *, always: Sequence[int] = ()) -> ClusteredHead:
    """Lay the rows of a head out by cluster: rows that are read together lie together.

    Args:
        weight: (V, D). Append a column with the bias, and a 1 to every feature, for a head with one.
        clusters: (K, R) classes of each cluster, -1 for none, as `balanced_clusters` finds them.
        always: classes that every feature is compared with, whatever its clusters.
    Raises:
        ValueError: a class that is missing from the clusters, twice in them, or not in the head.
    """
    listed = clusters[clusters >= 0]
    if clusters.ndim != 2 or not torch.equal(listed.sort().values, torch.arange(len(weight), device=clusters.device)):
        raise ValueError(f"arrange: clusters {tuple(clusters.shape)} do not hold each of {len(weight)} classes once")
    pinned = torch.as_tensor(list(always), dtype=torch.int64, device=clusters.device)
    if len(pinned) and not 0 <= int(pinned.min()) <= int(pinned.max()) < len(weight):
        raise ValueError(f"arrange: always {list(always)} names classes outside 0 to {len(weight) - 1}")
    clusters = clusters.long()
    clusters = clusters.masked_fill(torch.isin(clusters, pinned), -1)
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    held = (clusters >= 0)[..., None]
    means = (wide[clusters] * held).sum(1) / held.sum(1).clamp(min=1)
    extra = F.pad(pinned, (0, -len(pinned) % clusters.shape[1]), value=-1).view(-1, clusters.shape[1])
    classes = torch.cat([clusters, extra])
    rows = weight[classes].masked_fill((classes < 0)[..., None], 0.0)
    return ClusteredHead(rows, classes, F.normalize(means, dim=-1).to(weight.dtype), means.norm(dim=-1))


@torch.no_grad()
def similarities(hidden: Tensor, head: ClusteredHead) -> Tensor:
    """<h, mean / |mean|> with each cluster that is not scored always: hidden (..., D) -> (..., K)."""
    with _without_autocast(hidden):
        return hidden.to(head.directions.dtype) @ head.directions.t()


@torch.no_grad()
def retrieve(hidden: Tensor, head: ClusteredHead, *, probes: int | None = None, k: int = 1) -> Retrieved:
    """The k classes with the largest exact logits in the `probes` clusters nearest in direction.

    FlashHead's greedy search (Tranheden et al. 2026, arXiv 2603.14591), from its description. Equal logits: the
    smallest class first. All clusters give the exact head. An answer does not depend on the batch around it; from
    about V / (probes R) features on, a product with the whole head takes no longer. No gradient. Autocast changes
    nothing: it would read and copy the whole head at every call, which the clusters are there to avoid. To compute in
    16 bits, hold the head in them: `arrange(weight.bfloat16(), clusters)`.

    Args:
        hidden: (..., D), taken in the head's dtype.
        probes: how many clusters; one in 16 by default.
        k: how many classes, best first.
    Raises:
        ValueError: features of another size, more probes than clusters, more classes than probed.
    """
    flat, probes = _checked(hidden, head, probes)
    if not 1 <= k <= head.rows.shape[1] * probes:
        raise ValueError(f"retrieve: k = {k} of {head.rows.shape[1] * probes} probed classes")
    logits, classes = _probed(flat, head, similarities(flat, head).topk(probes, sorted=False).indices)
    if k == 1:
        score = logits.amax(1, keepdim=True)
        last = torch.iinfo(torch.int64).max
        label = classes.masked_fill(logits < score, last).amin(1, keepdim=True)
    else:
        classes, order = classes.sort(1)
        score, order = _best(logits.gather(1, order), k)
        label = classes.gather(1, order)
    return Retrieved(score.unflatten(0, hidden.shape[:-1]), label.unflatten(0, hidden.shape[:-1]))


def _best(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, the first of equal ones first (which TopK promises in ONNX, but not in PyTorch)."""
    if exporting():
        return logits.topk(k)
    score, order = logits.sort(dim=1, descending=True, stable=True)
    return score[:, :k], order[:, :k]


@torch.no_grad()
def sample(
    hidden: Tensor,
    head: ClusteredHead,
    *,
    probes: int | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Retrieved:
    """Draw a class: first `probes` clusters without replacement, then one of their classes.

    Clusters by softmax(<h, mean> / temperature), means not normalised; classes by softmax(logit / temperature). All
    clusters give the exact head's distribution. Shapes, defaults and errors as for `retrieve` with k = 1.
    """
    flat, probes = _checked(hidden, head, probes)
    if temperature <= 0:
        raise ValueError(f"sample: temperature {temperature} must be positive, use retrieve for the best class")
    nearness = similarities(flat, head) * head.lengths / temperature
    chosen = (nearness + _gumbel(nearness, generator)).topk(probes, sorted=False).indices
    logits, classes = _probed(flat, head, chosen)
    at = (logits / temperature + _gumbel(logits, generator)).argmax(1, keepdim=True)
    shape = hidden.shape[:-1]
    return Retrieved(logits.gather(1, at).unflatten(0, shape), classes.gather(1, at).unflatten(0, shape))


def _checked(hidden: Tensor, head: ClusteredHead, probes: int | None) -> tuple[Tensor, int]:
    dim, clusters = head.rows.shape[2], len(head.directions)
    if hidden.ndim < 2 or hidden.shape[-1] != dim:
        raise ValueError(f"retrieval head: features {tuple(hidden.shape)}, expected (..., {dim})")
    probes = max(1, clusters // 16) if probes is None else probes
    if not 1 <= probes <= clusters:
        raise ValueError(f"retrieval head: {probes} probes of {clusters} clusters")
    return hidden.reshape(-1, dim).to(head.rows.dtype), probes


def _probed(hidden: Tensor, head: ClusteredHead, probes: Tensor) -> tuple[Tensor, Tensor]:
    """Exact logits (-inf where there is no class) and classes, (T, (P + always) R) each."""
    pinned = torch.arange(len(head.directions), len(head.rows), device=probes.device)
    probes = torch.cat([probes, pinned.expand(probes.shape[0], -1)], 1)
    with _without_autocast(hidden):
        compute = reference.probed_logits if exporting() else torch.ops.zoo.probed_logits
        logits = compute(hidden, head.rows, probes).flatten(1)
    classes = head.classes[probes].flatten(1)
    return logits.masked_fill(classes < 0, -torch.inf), classes


def _gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise: the largest of x + noise is distributed by softmax(x)."""
    return -torch.empty_like(like).exponential_(generator=generator).log()


def _without_autocast(hidden: Tensor) -> AbstractContextManager:
    """Autocast would copy the whole head into its dtype at every call."""
    device = hidden.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if autocast else nullcontext()


@torch.library.custom_op("zoo::probed_logits", mutates_args=())
def _probed_logits(hidden: Tensor, rows: Tensor, probes: Tensor) -> Tensor:
    if runs_triton(hidden, rows):
        from zoo.kernels.retrieval_head import triton

        return triton.probed_logits(hidden, rows, probes)
    return aten.probed_logits(hidden, rows, probes)


@_probed_logits.register_fake
def _(hidden: Tensor, rows: Tensor, probes: Tensor) -> Tensor:
    wide = torch.promote_types(rows.dtype, torch.float32)
    return rows.new_empty((*probes.shape, rows.shape[1]), dtype=wide)
