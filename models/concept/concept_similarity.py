"""How alike two sets of activations are over the same images: the measures of CLIP-Dissect and label-free models.

Oikarinen, Weng, CLIP-Dissect, ICLR 2023, arXiv 2204.10965; Oikarinen et al., label-free CBM, ICLR 2023,
arXiv 2304.06129.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def cubed_cosine(wanted: Tensor, found: Tensor) -> Tensor:
    """Cosine of centred, then cubed columns: (N, K) and (N, K) -> (K,) in [-1, 1].

    Cubing lets the images decide that speak loudest for a concept. A column without variance has the cosine 0.
    """
    return (_cubed(wanted) * _cubed(found)).sum(0)


def cubed_cosine_pairs(found: Tensor, wanted: Tensor, *, floor: float = 1e-3) -> Tensor:
    """The same of every column with every other: (N, T) and (N, K) -> (T, K); norms are at least `floor`."""
    return _cubed(found, floor).T @ _cubed(wanted, floor)


def soft_wpmi(
    concepts: Tensor,
    activations: Tensor,
    *,
    top_k: int = 100,
    temperature: float = 10.0,
    lam: float = 1.0,
    smallest: float = 1e-7,
    first: float = 0.998,
    last: float = 0.97,
) -> Tensor:
    """Soft weighted pointwise mutual information of units and concepts: (N, K) and (N, T) -> (T, K).

    A unit's `top_k` images are its examples with a probability falling from `first` towards `last`; concepts explain
    them by softmax(temperature * concepts). sum log(1 + p (P(k|x) - 1)), minus lam times its log mean over the units.
    """
    explained = (temperature * concepts).softmax(dim=1)
    examples = activations.topk(top_k, dim=0).indices.T
    steps = torch.arange(top_k, device=concepts.device, dtype=concepts.dtype) / top_k
    membership = (first - steps * (first - last))[:, None]
    scores = torch.stack([(1 + membership * (explained[rows] - 1) + smallest).log().sum(0) for rows in examples])
    return scores - lam * (scores.logsumexp(0) - torch.tensor(float(len(scores))).log())


def _cubed(columns: Tensor, floor: float = 1e-12) -> Tensor:
    """Columns centred, cubed, and of length 1."""
    return normalize((columns - columns.mean(0)) ** 3, dim=0, eps=floor)
