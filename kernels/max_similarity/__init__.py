"""How much an image shows each concept, and where: the maximum similarity over positions, without the logits.

score, where = max_similarity(patches, concepts, cosine=True)                # a concept head with its localisation
terms, _ = max_similarity(tokens, vocabulary, bias, mask, activation="log1p_relu")       # a sparse retrieval head
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.dispatch import autocast_to, exporting, runs_triton, traced
from zoo.kernels.max_similarity import aten, reference

__all__ = ["MaxSimilarity", "max_similarity"]

Activation = Literal["identity", "relu", "log1p_relu"]


class MaxSimilarity(NamedTuple):
    """score (B, V) in float32 (float64 for float64 input); position (B, V) int32, -1 where nothing is active, or None
    where it was not asked for."""

    score: Tensor
    position: Tensor | None


def max_similarity(
    hidden: Tensor,
    embedding: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    activation: Activation = "identity",
    cosine: bool = False,
    positions: bool = True,
) -> MaxSimilarity:
    """score[b,v] = f(bias_v + max_s <hidden_bs, embedding_v>), with the position that reaches the maximum.

    f is increasing, so it is applied once per (b, v) after the maximum (Sparton, Nguyen et al. 2026, arXiv 2603.25011);
    the (B, S, V) logits are never stored. The gradient goes to the first of equal positions. An image without a valid
    position scores 0, at position -1, with no gradient; so does a concept that f sets to 0.

    Args:
        hidden: (B, S, D) patch or token features.
        embedding: (V, D) concepts or vocabulary.
        bias: (V,) or None.
        mask: (B, S), true where a position counts; None = everywhere.
        activation: f: "identity", "relu", or "log1p_relu" = log(1 + max(., 0)).
        cosine: normalise hidden and embedding rows to length 1 first.
        positions: false where scores alone will do: a CPU finds a maximum in half the time of its place.
    Raises:
        ValueError: shapes or types that do not fit, no features, or an unknown activation.
    """
    _check(hidden, embedding, bias, mask, activation)
    if cosine:
        hidden, embedding = F.normalize(hidden, dim=-1), F.normalize(embedding, dim=-1)
    hidden, embedding = autocast_to(hidden, embedding)
    if hidden.dtype != embedding.dtype:
        raise ValueError(f"max_similarity: hidden is {hidden.dtype} and embedding {embedding.dtype}, give one type")
    score, at = _best(hidden, embedding, mask, positions)
    empty: Tensor | None = None
    if mask is not None or not hidden.shape[1]:
        empty = score == -torch.inf if at is None else at < 0
        score = score.masked_fill(empty, 0.0)
    if bias is not None:
        score = score + bias.to(score.dtype)
    if activation != "identity":
        at = None if at is None else at.masked_fill(score <= 0 if empty is None else empty | (score <= 0), -1)
        score = score.relu()
    if empty is not None:
        score = score.masked_fill(empty, 0.0)
    return MaxSimilarity(score.log1p() if activation == "log1p_relu" else score, at if positions else None)


def _best(hidden: Tensor, embedding: Tensor, mask: Tensor | None, positions: bool) -> tuple[Tensor, Tensor | None]:
    """The maxima (B, V), and their places where they are asked for or a gradient needs them."""
    learns = torch.is_grad_enabled() and (hidden.requires_grad or embedding.requires_grad)
    if not traced() and aten.is_small(hidden, embedding, learns) and not runs_triton(hidden, embedding):
        return aten.all_at_once(hidden, embedding, mask, positions or learns)
    if exporting():
        top, at = reference.max_dot(hidden, embedding, mask)
        return top, at.int()
    if positions or learns:
        return torch.ops.zoo.max_dot(hidden, embedding, mask)
    return torch.ops.zoo.max_dot_score(hidden, embedding, mask), None


def _check(hidden: Tensor, embedding: Tensor, bias: Tensor | None, mask: Tensor | None, activation: str) -> None:
    if activation not in ("identity", "relu", "log1p_relu"):
        raise ValueError(f"max_similarity: activation {activation!r}, choose one of identity, relu, log1p_relu")
    if hidden.ndim != 3 or embedding.ndim != 2 or hidden.shape[2] != embedding.shape[1]:
        raise ValueError(
            f"max_similarity: hidden {tuple(hidden.shape)} and embedding {tuple(embedding.shape)}, "
            "expected (B, S, D) and (V, D)"
        )
    if not hidden.shape[2]:
        raise ValueError(f"max_similarity: hidden {tuple(hidden.shape)} has no features")
    if bias is not None and bias.shape != embedding.shape[:1]:
        raise ValueError(f"max_similarity: bias {tuple(bias.shape)}, expected ({embedding.shape[0]},)")
    if mask is not None and mask.shape != hidden.shape[:2]:
        raise ValueError(f"max_similarity: mask {tuple(mask.shape)}, expected {tuple(hidden.shape[:2])}")


@torch.library.custom_op("zoo::max_dot", mutates_args=())
def _max_dot(hidden: Tensor, embedding: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    if runs_triton(hidden, embedding):
        from zoo.kernels.max_similarity.triton import max_dot

        return max_dot(hidden, embedding, mask)
    return aten.max_dot(hidden, embedding, mask)


@_max_dot.register_fake
def _(hidden: Tensor, embedding: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    shape = (hidden.shape[0], embedding.shape[0])
    wide = torch.promote_types(hidden.dtype, torch.float32)
    return hidden.new_empty(shape, dtype=wide), hidden.new_empty(shape, dtype=torch.int32)


@torch.library.custom_op("zoo::max_dot_score", mutates_args=())
def _max_dot_score(hidden: Tensor, embedding: Tensor, mask: Tensor | None) -> Tensor:
    if runs_triton(hidden, embedding):
        from zoo.kernels.max_similarity.triton import max_dot

        return max_dot(hidden, embedding, mask)[0]
    return aten.max_dot_score(hidden, embedding, mask)


@_max_dot_score.register_fake
def _(hidden: Tensor, embedding: Tensor, mask: Tensor | None) -> Tensor:
    wide = torch.promote_types(hidden.dtype, torch.float32)
    return hidden.new_empty((hidden.shape[0], embedding.shape[0]), dtype=wide)


@torch.library.custom_op("zoo::max_dot_backward", mutates_args=())
def _max_dot_backward(grad: Tensor, hidden: Tensor, embedding: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    if runs_triton(hidden, embedding):
        from zoo.kernels.max_similarity.triton import max_dot_backward

        return max_dot_backward(grad, hidden, embedding, at)
    return aten.max_dot_backward(grad, hidden, embedding, at)


@_max_dot_backward.register_fake
def _(grad: Tensor, hidden: Tensor, embedding: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(hidden), torch.empty_like(embedding)


def _save(ctx, inputs, output) -> None:
    hidden, embedding, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(hidden, embedding, output[1])


def _backward(ctx, grad: Tensor, _):
    return *torch.ops.zoo.max_dot_backward(grad, *ctx.saved_tensors), None


_max_dot.register_autograd(_backward, setup_context=_save)
