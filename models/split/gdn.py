"""Generalised divisive normalisation, in its simplified form: an activation that makes features more independent.

Johnston et al., "Computationally Efficient Neural Image Compression", arXiv 1912.08771, after Ballé et al., arXiv
1511.06281.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.split.bounds import lower_bound

PEDESTAL = 2.0**-36


class GDN1(nn.Module):
    """(B, C, H, W): y_i = x_i / (beta_i + sum_j gamma_ij |x_j|), or with `inverse` times that.

    Parameters are kept as square roots: beta = max(p, sqrt(beta_min + 2^-36))^2 - 2^-36, gamma likewise with minimum 0.
    """

    def __init__(self, channels: int, *, inverse: bool = False, beta_min: float = 1e-6, gamma_init: float = 0.1):
        super().__init__()
        self.inverse = inverse
        self.beta_bound, self.gamma_bound = (beta_min + PEDESTAL) ** 0.5, PEDESTAL**0.5
        self.beta = nn.Parameter((torch.ones(channels) + PEDESTAL).sqrt())
        self.gamma = nn.Parameter((gamma_init * torch.eye(channels) + PEDESTAL).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        beta = lower_bound(self.beta, self.beta_bound) ** 2 - PEDESTAL
        gamma = lower_bound(self.gamma, self.gamma_bound) ** 2 - PEDESTAL
        norm = F.conv2d(x.abs(), gamma[:, :, None, None], beta)
        return x * norm if self.inverse else x / norm
