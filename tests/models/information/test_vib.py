"""VIB: parity, the closed forms, and the two bounds."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from tests.golden.cases import Case, adapter
from zoo.models.backbone import MLP, Identity
from zoo.models.contract import Batch, Intervention
from zoo.models.information.latent import GaussianLatent
from zoo.models.information.vib import BIT, VIB


@adapter("vib", "VIB.loss")
def vib_loss(case: Case) -> dict[str, Tensor]:
    """The encoder is the identity, so that the model is given mu and rho as features."""
    given, samples = case.input, case.arguments["eval_samples"]
    width, classes = given["mu"].shape[1], given["decoder_weight"].shape[0]
    model = VIB(
        backbone=Identity(in_channels=2 * width),
        num_outputs=classes,
        latent_dim=width,
        beta=case.arguments["beta"],
        std_offset=case.arguments["std_offset"],
    ).to(case.dtype)
    identity = torch.eye(2 * width, dtype=case.dtype)
    model.encoder.load_state_dict({"weight": identity, "bias": torch.zeros(2 * width)})
    model.decoder.load_state_dict({"0.weight": given["decoder_weight"], "0.bias": given["decoder_bias"]})
    mu, rho = given["mu"].requires_grad_(), given["rho"].requires_grad_()
    latent = model.encode(torch.cat([mu, rho], dim=1))
    output = model.decode(latent, given["eps"][:1])
    terms = model.loss(output, {"label": given["y"]})
    averaged = model.decode(latent, given["eps"])
    return {
        "output/std": latent.std,
        "output/class_loss_bits": terms["class_loss"],
        "output/info_loss_bits": terms["info_loss"],
        "output/total_loss": terms["loss"],
        "output/IZY_bound_bits": math.log2(classes) - terms["class_loss"],
        f"output/avg_probs_{samples}": averaged.prediction.softmax(-1),
        **case.gradients(terms["loss"], {"grad/total_loss/mu": mu, "grad/total_loss/rho": rho}),
    }


def build(**arguments) -> VIB:
    torch.manual_seed(0)
    return VIB(backbone=MLP(in_channels=6, hidden=(16,)), num_outputs=3, **({"latent_dim": 5} | arguments))


def batch_of(size: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 3, (size,), generator=generator)
    return {"image": torch.randn(size, 6, generator=generator) + label[:, None], "label": label}


def test_rate_is_the_kl_divergence():
    latent = GaussianLatent(torch.randn(7, 4, dtype=torch.float64), torch.rand(7, 4, dtype=torch.float64) + 0.1)
    prior = Independent(Normal(torch.zeros(4, dtype=torch.float64), 1.0), 1)
    wanted = kl_divergence(Independent(Normal(latent.mean, latent.std), 1), prior)
    torch.testing.assert_close(latent.rate(), wanted, rtol=1e-9, atol=1e-9)
    z = torch.randn(3, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(latent.log_prob(z), Independent(Normal(latent.mean, latent.std), 1).log_prob(z))
    assert GaussianLatent(torch.zeros(2, 3), torch.ones(2, 3)).rate().tolist() == [0, 0]


def test_parameters_of_the_released_network():
    backbone = MLP(in_channels=1, image_size=(28, 28), hidden=(1024, 1024))
    model = VIB(backbone=backbone, num_outputs=10)
    assert sum(value.numel() for value in model.parameters()) == 2_380_810


def test_without_a_price_it_is_noisy_cross_entropy():
    model, batch = build(beta=0.0).train(), batch_of()
    output = model(batch["image"])
    assert torch.equal(model.loss(output, batch)["loss"], F.cross_entropy(output.prediction, batch["label"]) / BIT)


def test_training_draws_and_evaluation_does_not():
    model, batch = build(std_offset=0.0), batch_of()
    model.train()
    assert not torch.equal(model(batch["image"]).prediction, model(batch["image"]).prediction)
    model.eval()
    output = model(batch["image"])
    assert torch.equal(output.prediction, model(batch["image"]).prediction)
    assert torch.equal(output.latent, output.extras["mean"])
    features = model.backbone(batch["image"])
    assert torch.equal(output.prediction, model.forward_batch({"features": features}).prediction)


def test_averaging_samples_never_costs_bits():
    """Jensen: the cross-entropy of mean probabilities is at most the mean cross-entropy."""
    model, batch = build(std_offset=0.0).eval(), batch_of()
    latent = model.encode(model.backbone(batch["image"]))
    noise = torch.randn(20, 32, 5)
    together = model.distortion(model.decode(latent, noise).prediction, batch)
    single = torch.stack([model.distortion(model.decode(latent, each[None]).prediction, batch) for each in noise])
    assert together <= single.mean()
    probabilities = model.decode(latent, noise).prediction.exp()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(32))
    model.eval_samples = 4
    assert model(batch["image"]).prediction.shape == (32, 3)


def test_information_plane_bounds():
    model, batch = build(), batch_of(300)
    labels = np.array([0, 0, 0, 1])
    model.prepare(SimpleNamespace(train_set=SimpleNamespace(labels=labels)))
    assert float(model.label_entropy) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    model.prepare(SimpleNamespace(train_set=SimpleNamespace(labels=batch["label"].numpy())))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = model.eval().diagnostics(model(batch["image"]), batch)
    for _ in range(100):
        loss = model.train().loss(model(batch["image"]), batch)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = model.eval().diagnostics(model(batch["image"]), batch)
    assert after["izy_bits"] > before["izy_bits"] + 0.3
    assert 0 <= after["izy_bits"] <= model.label_entropy
    assert after["izy_bits"] <= after["izx_bits"]
    again = model.diagnostics(model(batch["image"]), batch)
    assert again == after


def test_a_higher_price_buys_a_lower_rate():
    batch, rates = batch_of(200), []
    for beta in (1e-4, 1e-1, 10.0):
        model = build(beta=beta).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(150):
            loss = model.loss(model(batch["image"]), batch)["loss"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        rates.append(float(model.eval()(batch["image"]).extras["rate"].mean()))
    assert rates[0] > rates[1] > rates[2]
    assert rates[2] < 0.5


def test_regression():
    model = VIB(
        backbone=MLP(in_channels=6, hidden=(8,)), num_outputs=2, task="regression", latent_dim=3, eval_samples=3
    )
    batch = {"image": torch.rand(8, 6), "label": torch.rand(8, 2)}
    model.loss(model(batch["image"]), batch)["loss"].backward()
    output = model.eval()(batch["image"])
    assert set(model.diagnostics(output, batch)) == {"izx_bits"}


def test_mistakes():
    with pytest.raises(ValueError, match="beta=-1"):
        build(beta=-1)
    with pytest.raises(ValueError, match="cbm"):
        build()(torch.rand(2, 6), Intervention(torch.zeros(2, dtype=torch.bool), torch.zeros(2)))
