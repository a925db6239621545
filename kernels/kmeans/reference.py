"""Lloyd's k-means as plain PyTorch, with the N x K distances in memory.

assign   a_n = argmin_k |x_n - c_k|^2, the smallest k on a tie
update   c_k = mean of the x_n with a_n = k; a cluster without points keeps its centroid
"""

import torch
from torch import Tensor


def assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, N, D), centroids (B, K, D) -> ids (B, N) int64, squared distances (B, N)."""
    distances = (x[:, :, None] - centroids[:, None]).square().sum(-1)
    ids = distances.argmin(-1)
    return ids, distances.gather(-1, ids[..., None]).squeeze(-1)


def update(x: Tensor, ids: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """x (B, N, D), ids (B, N), centroids (B, K, D) -> new centroids (B, K, D), counts (B, K) int64."""
    member = torch.nn.functional.one_hot(ids.long(), centroids.shape[1])
    counts = member.sum(1)
    sums = member.to(x.dtype).transpose(1, 2) @ x
    means = sums / counts.clamp(min=1)[..., None]
    return torch.where(counts[..., None] > 0, means, centroids), counts
