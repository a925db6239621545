"""Neural filter: a classifier on the device that drops a frame with nothing in it before anything is sent.

Matsubara & Levorato, "Neural Compression and Filtering for Edge-assisted Real-time Object Detection", arXiv 2007.15818.
It reads the 64-channel stem output of the detector's ResNet; a frame is dropped where P(class 1) stays below a
threshold (0.01 as released), which is picked from the ROC at a minimum recall.
"""

from torch import Tensor, nn


class NeuralFilter(nn.Module):
    """(B, in_channels, H, W) maps of any size to (B, num_outputs): logits in training, probabilities in evaluation.

    88,402 parameters for 64 channels and two classes (nothing there, something there).
    """

    def __init__(self, *, in_channels: int = 64, num_outputs: int = 2):
        super().__init__()
        self.extractor = nn.Sequential(
            nn.AdaptiveAvgPool2d(64),
            *_block(in_channels, 64, kernel=4),
            *_block(64, 32, kernel=3),
            *_block(32, 16, kernel=2, stride=1),
            nn.AdaptiveAvgPool2d(8),
        )
        self.linear = nn.Linear(16 * 8 * 8, num_outputs)

    def logits(self, features: Tensor) -> Tensor:
        """(B, num_outputs) before the softmax."""
        return self.linear(self.extractor(features).flatten(1))

    def forward(self, features: Tensor) -> Tensor:
        logits = self.logits(features)
        return logits if self.training else logits.softmax(dim=1)

    def keep(self, features: Tensor, *, threshold: float = 0.01) -> Tensor:
        """(B,) bool: which frames are worth sending."""
        return self.logits(features).softmax(dim=1)[:, 1] >= threshold


def _block(inputs: int, outputs: int, *, kernel: int, stride: int = 2) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride=stride), nn.BatchNorm2d(outputs), nn.ReLU()]
