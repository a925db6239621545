"""The same on a CPU: tiles of logits that stay in the cache, and a backward that touches the chosen rows only.

Dense autograd costs 4 B S V D operations and several passes over B S V logits; here they are 4 B V D and none.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS, TILE = 640, 1024 * 1024
"""Positions multiplied at a time, and logits kept at a time (4 MiB of float32)."""
DENSE = 8 * 1024 * 1024
"""Products up to which the gradient of all logits takes less time than finding those that have one."""


def is_small(hidden: Tensor, embedding: Tensor, learns: bool) -> bool:
    """Whether all logits fit one tile, and tiles would save nothing in the product and the gradient either."""
    batch, length, dim = hidden.shape
    logits = batch * length * embedding.shape[0]
    cheap = logits * dim <= DENSE if learns else hidden.element_size() == 2 or batch * length * dim <= 4 * TILE
    return 0 < logits <= TILE and cheap


def all_at_once(
    hidden: Tensor, embedding: Tensor, mask: Tensor | None, positions: bool
) -> tuple[Tensor, Tensor | None]:
    """`max_dot` of few logits as plain PyTorch, with its gradient: less time than calling an operator takes."""
    outside = None if mask is None else ~mask.bool()[:, :, None]
    if outside is not None:  # a weight of zero does not hide what is not a number from the gradient
        hidden = hidden.masked_fill(outside, 0.0)
    if not positions and hidden.shape[1] > 4 * embedding.shape[0]:
        return _of_few_concepts(hidden, embedding, outside), None
    logits = F.linear(hidden, embedding)
    if outside is not None:
        logits = logits.masked_fill(outside, float("-inf"))
    if not positions:
        return _wide(logits.amax(1)), None
    top, at = logits.max(1)
    return _wide(top), at.int() if mask is None else at.int().masked_fill_(top == float("-inf"), -1)


def _of_few_concepts(hidden: Tensor, embedding: Tensor, outside: Tensor | None) -> Tensor:
    """The maxima, from logits whose positions lie side by side: the longer rows are faster to go through."""
    batch, length, dim = hidden.shape
    logits = (embedding @ hidden.reshape(-1, dim).t()).view(-1, batch, length)
    if outside is not None:
        logits = logits.masked_fill(outside[..., 0], float("-inf"))
    return _wide(logits.amax(2).t().contiguous())


def _wide(top: Tensor) -> Tensor:
    return top if top.dtype == torch.float64 else top.float()


def max_dot(hidden: Tensor, embedding: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """hidden (B, S, D), embedding (V, D), mask (B, S) -> top (B, V) in float32 or wider, at (B, V) int32."""
    top = _nothing(hidden, embedding)
    at = torch.full(top.shape, -1, dtype=torch.int32, device=hidden.device)
    for place, logits in _tiles(hidden, embedding, mask):
        top[place], at[place] = logits.max(1)
    if mask is not None:
        at.masked_fill_(top == float("-inf"), -1)
    return top, at


def max_dot_score(hidden: Tensor, embedding: Tensor, mask: Tensor | None = None) -> Tensor:
    """`max_dot` without the places, whose search takes longer than that of the maxima."""
    top = _nothing(hidden, embedding)
    for place, logits in _tiles(hidden, embedding, mask):
        top[place] = logits.amax(1)
    return top


def _nothing(hidden: Tensor, embedding: Tensor) -> Tensor:
    """The maximum over no position at all: (B, V) of -inf."""
    shape, wide = (hidden.shape[0], embedding.shape[0]), torch.promote_types(hidden.dtype, torch.float32)
    return torch.full(shape, float("-inf"), dtype=wide, device=hidden.device)


def _tiles(hidden: Tensor, embedding: Tensor, mask: Tensor | None) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Some images' and concepts' place in the result, and their logits (b, S, v), -inf outside the mask.

    All tiles lie in the same memory: what is made of one has to be copied before the next.
    """
    batch, length, dim = hidden.shape
    images = max(1, min(ROWS // max(1, length), batch))
    step = min(max(64, TILE // max(1, images * length)), max(1, embedding.shape[0]))
    buffer = hidden.new_empty(images * length * step)
    outside = None if mask is None else ~mask.bool()[:, :, None]
    for v in range(0, embedding.shape[0] if length else 0, step):
        columns = embedding[v : v + step].t()
        for b in range(0, batch, images):
            rows = hidden[b : b + images].reshape(-1, dim)
            tile = buffer[: len(rows) * columns.shape[1]].view(len(rows), -1)
            logits = torch.mm(rows, columns, out=tile).view(-1, length, columns.shape[1])
            if outside is not None:
                logits.masked_fill_(outside[b : b + images], float("-inf"))
            yield (slice(b, b + images), slice(v, v + step)), logits


def chosen_pairs(grad: Tensor, at: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The (image position, concept, gradient) triples (A,) that a gradient passes through."""
    image, concept = ((grad != 0) & (at >= 0)).nonzero(as_tuple=True)
    return image * length + at[image, concept], concept, grad[image, concept]


def bags(keys: Tensor, rows: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sort pairs by key: rows and weights (A,) in that order, and where each of `count` bags starts (count + 1,)."""
    keys, order = keys.sort(stable=True)
    offsets = torch.searchsorted(keys, torch.arange(count + 1, device=keys.device))
    return rows[order], weights[order], offsets


def max_dot_backward(grad: Tensor, hidden: Tensor, embedding: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """dh[b, at[b,v]] += g_bv e_v and de_v += g_bv h[b, at[b,v]]."""
    batch, length, dim = hidden.shape
    position, concept, weight = chosen_pairs(grad, at, length)
    flat = hidden.reshape(-1, dim)
    dh = _weighted_sums(embedding, *bags(position, concept, weight, batch * length))
    de = _weighted_sums(flat, *bags(concept, position, weight, embedding.shape[0]))
    return dh.view_as(hidden), de


def _weighted_sums(table: Tensor, rows: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """sum of weights[p] * table[rows[p]] over each bag of pairs."""
    if not rows.numel():
        return table.new_zeros(offsets.numel() - 1, table.shape[1])
    weights = weights.to(table.dtype)
    return F.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)
