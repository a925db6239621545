"""The head as plain PyTorch: exact logits of the classes in the probed clusters (arXiv 2603.14591).

stage 1   the P clusters c with the largest <h, mean_c / |mean_c|>
stage 2   z[t,p,r] = <h_t, rows[probes[t,p], r]>, exact
"""

import torch
from torch import Tensor


def probed_logits(hidden: Tensor, rows: Tensor, probes: Tensor) -> Tensor:
    """hidden (T, D), rows (C, R, D), probes (T, P) clusters -> (T, P, R) in float32 or wider."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    return torch.einsum("tprd,td->tpr", rows[probes].to(wide), hidden.to(wide))
