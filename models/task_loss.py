"""The loss of a model's own prediction, by the data's task."""

import torch.nn.functional as F
from torch import Tensor


def task_loss(prediction: Tensor, label: Tensor, *, task: str) -> Tensor:
    """Cross-entropy of the classes (binary where there is one output), or mean squared error in regression.

    prediction (B, M); label (B,) classes, or (B,) or (B, M) values.
    """
    if task == "regression":
        return F.mse_loss(prediction, label.to(prediction).reshape(prediction.shape))
    if prediction.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(prediction, label.to(prediction).reshape(prediction.shape))
    return F.cross_entropy(prediction, label)
