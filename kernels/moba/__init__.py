"""Mixture of block attention: every query attends to the few key blocks whose mean it likes best.

Lu et al., MoBA, arXiv 2502.13189. Keys are cut into blocks of `chunk`; the gate of query i for block n is
<q_i, mean of its keys>, in float32; the `topk` best blocks are attended exactly, by `attention` with a block mask.
No gradient flows through the choice. With causal=True the query's own block always counts as one of them and later
blocks are never chosen; without (vision) all blocks compete.

MoBA changes what a network computes: it needs training, or at least tuning, with it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.kernels.attention import attention

__all__ = ["moba_attention", "route"]


def moba_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    chunk: int,
    topk: int,
    causal: bool = False,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """q (B, H, M, D), k, v (B, K, N, D) -> o (B, H, M, D); causal needs M = N.

    A key or value that is not finite also spoils queries that did not choose its block: its weight there is a zero.

    Raises ValueError where shapes do not fit, or `chunk` or `topk` is not positive.
    """
    chosen = route(q, k, chunk=chunk, topk=topk, causal=causal)
    blocks = -(-k.shape[2] // chunk)
    mask = F.one_hot(chosen.long() + 1, blocks + 1).sum(-2)[..., 1:] > 0
    return attention(q, k, v, causal=causal, scale=scale, block_mask=mask, block_size=(1, chunk), return_lse=return_lse)


@torch.no_grad()
def route(q: Tensor, k: Tensor, *, chunk: int, topk: int, causal: bool = False) -> Tensor:
    """The chosen blocks (B, H, M, topk) int32 in order of decreasing gate, -1 where there are none left.

    Ties go to the earlier block.
    """
    if min(chunk, topk) < 1:
        raise ValueError(f"chunk and topk must be positive, not {chunk} and {topk}")
    keys = k.shape[2]
    blocks = -(-keys // chunk)
    padded = F.pad(k.float(), (0, 0, 0, blocks * chunk - keys)).unflatten(2, (blocks, chunk)).sum(3)
    sizes = (keys - chunk * torch.arange(blocks, device=k.device)).clamp(max=chunk)
    means = (padded / sizes[:, None]).repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    gate = q.float() @ means.mT  # (B, H, M, blocks)
    if causal:
        if q.shape[2] != keys:
            raise ValueError(f"causal routing needs as many queries as keys, not {q.shape[2]} and {keys}")
        own = torch.arange(keys, device=q.device)[:, None] // chunk
        block = torch.arange(blocks, device=q.device)
        gate = gate.masked_fill(block > own, -torch.inf).masked_fill(block == own, torch.inf)
    order = gate.argsort(dim=-1, descending=True, stable=True)[..., :topk]
    order = order.masked_fill(gate.gather(-1, order) == -torch.inf, -1)
    return F.pad(order, (0, topk - order.shape[-1]), value=-1).int()
