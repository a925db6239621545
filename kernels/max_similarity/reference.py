"""The best-matching position of each image for each concept, as plain PyTorch (all logits at once).

    z[b,s,v] = <h_bs, e_v>      top[b,v] = max_s z[b,s,v]      at[b,v] = the first s that reaches it

An image without a valid position has top = -inf and at = -1.
"""

import torch
from torch import Tensor


def max_dot(hidden: Tensor, embedding: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """hidden (B, S, D), embedding (V, D), mask (B, S) true where a position counts -> top (B, V), at (B, V) int64."""
    logits = hidden @ embedding.t()
    if mask is not None:
        logits = logits.masked_fill(~mask.bool()[:, :, None], float("-inf"))
    # gathered, so that the gradient goes to the first of equal positions only
    at = logits.argmax(1)
    top = logits.gather(1, at[:, None]).squeeze(1)
    return top, torch.where(top == float("-inf"), -1, at)
