"""Area under the ROC curve of many columns at once."""

import torch
from torch import Tensor


def area_under_roc(scores: Tensor, target: Tensor) -> Tensor:
    """AUC of every column: chance that a positive scores above a negative, ties counting half.

    scores (N, K), any real numbers; target (N, K), positive above 1/2. (K,) float64, NaN where a column has only
    positives or only negatives.
    """
    areas = []
    for column, wanted in zip(scores.double().unbind(1), (target > 0.5).unbind(1)):
        positive, negative = column[wanted], column[~wanted].sort().values
        below = torch.searchsorted(negative, positive)
        up_to = torch.searchsorted(negative, positive, right=True)
        areas.append((below + up_to).double().mean() / (2 * len(negative)))
    return torch.stack(areas)
