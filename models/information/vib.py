"""Deep variational information bottleneck (Alemi, Fischer, Dillon, Murphy, ICLR 2017, arXiv 1612.00410).

    q(z|x) = N(mu(x), s(x)^2),   s = softplus(rho(x) - 5)
    L = E_q[-log p(y|z)] + beta * KL(q(z|x) || N(0, I))

Two bounds place the model on the information plane, both in bits:

    I(X;Z) <= rate = mean KL          I(Z;Y) >= H(Y) - E_q[-log p(y|z)]

The released notebook (alexalemi/vib_demo, Apache-2.0) takes H(Y) = log2(classes), which overstates the second bound
where classes are unbalanced; here H(Y) is that of the training labels. It also averages the weights over training.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.models.backbone import Backbone, activation_named
from zoo.models.contract import Batch, Intervention, Output, ZooModel
from zoo.models.information.latent import GaussianLatent

BIT = math.log(2)


class VIB(ZooModel):
    """A backbone, a Gaussian latent of `latent_dim` numbers, and a decoder that reads one sample of it.

    In training the decoder sees one sample. In evaluation it sees the mean, so that a prediction is deterministic, or
    with `eval_samples` = n > 0 the prediction is the log of the mean probability over n samples (a mean in regression).

    Args:
        beta: price of a bit of rate in bits of loss.
        std_offset: the 5 above, which makes the first latents nearly deterministic.
        decoder_hidden: widths of the decoder's hidden layers; none: linear.
    """

    label_entropy: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_outputs: int,
        task: Literal["classification", "regression"] = "classification",
        latent_dim: int = 256,
        beta: float = 1e-3,
        std_offset: float = 5.0,
        decoder_hidden: Sequence[int] = (),
        activation: str = "ReLU",
        eval_samples: int = 0,
    ):
        super().__init__()
        if beta < 0:
            raise ValueError(f"beta={beta}: give a price of the rate of at least 0")
        if latent_dim < 1:
            raise ValueError(f"latent_dim={latent_dim}: give at least 1")
        self.task, self.beta, self.std_offset, self.eval_samples = task, beta, std_offset, eval_samples
        self.backbone = backbone
        self.encoder = nn.Linear(backbone.feature_dim, 2 * latent_dim)
        self.decoder = nn.Sequential()
        width = latent_dim
        for size in decoder_hidden:
            self.decoder.extend([nn.Linear(width, size), activation_named(activation)])
            width = size
        self.decoder.append(nn.Linear(width, num_outputs))
        self.register_buffer("label_entropy", torch.tensor(math.log2(num_outputs)))

    def forward_features(self, features: Tensor, intervene: Intervention | None = None) -> Output:
        if intervene is not None:
            raise ValueError("vib has no concepts to set: take a model of the concept family, such as cbm")
        latent = self.encode(features)
        samples = 1 if self.training else self.eval_samples
        if not samples:
            return self.decode(latent, None)
        return self.decode(latent, torch.randn_like(latent.mean.expand(samples, -1, -1)))

    def encode(self, features: Tensor) -> GaussianLatent:
        """features (B, D) -> q(z|x)."""
        mean, rho = self.encoder(features).chunk(2, dim=1)
        return GaussianLatent(mean, F.softplus(rho - self.std_offset))

    def decode(self, latent: GaussianLatent, noise: Tensor | None) -> Output:
        """The prediction from samples by standard normal noise (S, B, L), or from the mean."""
        seen = latent.mean if noise is None else latent.sample(noise)
        prediction = self.decoder(seen)
        if noise is not None and len(noise) == 1:
            seen, prediction = seen[0], prediction[0]
        elif noise is not None:
            seen, prediction = latent.mean, self.average(prediction)
        rate = latent.rate() / BIT
        return Output(prediction, latent=seen, extras={"mean": latent.mean, "std": latent.std, "rate": rate})

    def average(self, predictions: Tensor) -> Tensor:
        """(S, B, M) -> (B, M): the logarithm of the mean probabilities, or the mean value in regression."""
        if self.task == "regression":
            return predictions.mean(0)
        return predictions.log_softmax(-1).logsumexp(0) - math.log(len(predictions))

    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """`class_loss` and `info_loss` in bits (a Gaussian of unit variance in regression), and class + beta * info."""
        class_loss = self.distortion(output.prediction, batch)
        info_loss = output.extras["rate"].mean()
        return {"loss": class_loss + self.beta * info_loss, "class_loss": class_loss, "info_loss": info_loss}

    def distortion(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mean of -log2 p(y|z); in regression without its constant."""
        label = batch["label"]
        if self.task == "regression":
            error = prediction - label.to(prediction).reshape(prediction.shape)
            return error.square().sum(1).mean() / (2 * BIT)
        return F.cross_entropy(prediction, label) / BIT

    def diagnostics(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The point on the information plane: `izx_bits`, an upper bound on I(X;Z), and in classification `izy_bits`, a
        lower bound on I(Z;Y), estimated with one sample a picture and always the same noise."""
        found = {"izx_bits": output.extras["rate"].mean()}
        if self.task == "classification":
            mean = output.extras["mean"]
            fixed = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)).to(mean)
            sampled = self.decode(GaussianLatent(mean, output.extras["std"]), fixed[None])
            found["izy_bits"] = self.label_entropy - self.distortion(sampled.prediction, batch)
        return found

    def prepare(self, datamodule: Any) -> None:
        """H(Y) in bits, from the training labels."""
        if self.task == "classification":
            share = torch.bincount(torch.as_tensor(datamodule.train_set.labels).long()).double()
            share = share[share > 0] / share.sum()
            self.label_entropy.fill_(float(-(share * share.log2()).sum()))
