"""Parity of the entropy-coded bottlenecks with the authors' code."""

from typing import Any

import torch
from torch import Tensor

from tests.golden.cases import Case, adapter
from zoo.models.split.compressive_bottlenecks import FactorizedBottleneck, HyperpriorBottleneck, bits, convert_state
from zoo.models.split.gaussian_conditional import scale_table
from zoo.models.split.gdn import GDN1


@adapter("sc2_factorized_prior", "GDN1")
def gdn(case: Case) -> dict[str, Tensor]:
    arguments = case.arguments
    module = GDN1(
        arguments["in_channels"],
        inverse=arguments["inverse"],
        beta_min=arguments["beta_min"],
        gamma_init=arguments["gamma_init"],
    )
    module.load_state_dict(convert_state(case.param))
    x = case.input["x"].requires_grad_()
    y = module(x)
    return {
        "output/y": y,
        **case.gradients(y.sum(), {"grad/x": x, "grad/beta": module.beta, "grad/gamma": module.gamma}),
    }


def _costs(likelihood: Tensor) -> dict[str, float]:
    total = bits(likelihood).sum().item()
    positions = likelihood.shape[0] * likelihood.shape[2] * likelihood.shape[3]
    return {"sum": total, "batchmean": total / len(likelihood), "mean": total / positions}


@adapter("sc2_factorized_prior", "FPBasedResNetBottleneck")
def factorized(case: Case) -> dict[str, Any]:
    arguments = case.arguments
    model = FactorizedBottleneck(
        in_channels=arguments["num_input_channels"],
        channels=arguments["num_bottleneck_channels"],
        out_channels=arguments["num_target_channels"],
    ).train(case.mode == "train")
    model.load_state_dict(convert_state(case.param))
    prior = model.entropy_bottleneck
    z = model.encoder(case.input["x"]).detach()
    z_hat, likelihood = prior(z)
    total, aux = bits(likelihood).sum(), prior.aux_loss()
    gradients = case.gradients(
        total,
        {"grad/bits_wrt_matrices.0": prior.matrices[0], "grad/bits_wrt_factors.1": prior.factors[1]},
    ) | case.gradients(aux, {"grad/aux_wrt_quantiles": prior.quantiles})
    tables, symbols = prior.update(), prior.symbols(z)
    strings = prior.compress(z)
    estimate = total.item() / 8
    index = symbols - tables.offset.reshape(1, -1, 1, 1)
    outside = (index < 0) | (index >= tables.length.reshape(1, -1, 1, 1) - 2)
    # a symbol outside its table is sent as an escape and a plain integer
    assert sum(map(len, strings)) <= 1.02 * estimate + 16 * len(strings) + 8 * int(outside.sum())
    return {
        "output/z": z,
        "output/z_hat": z_hat,
        "output/symbols": symbols,
        "output/likelihood": likelihood,
        "output/likelihood_noisy": prior.likelihood(z + case.input["noise"]),
        "output/aux_loss": aux,
        "output/y": model.decoder(z_hat),
        "output/y_coded": model.decompress(strings, z.shape[1:]),
        "output/quantized_cdf": tables.cdf,
        "output/offset": tables.offset,
        "output/cdf_length": tables.length,
        "expected/bpp_loss": _costs(likelihood),
        "expected/estimated_bytes_total": estimate,
        "expected/symbols_outside_table": int(outside.sum()),
        **gradients,
    }


@adapter("sc2_hyperprior", "SHPBasedResNetBottleneck", "MSHPBasedResNetBottleneck")
def hyperprior(case: Case) -> dict[str, Any]:
    arguments = case.arguments
    model = HyperpriorBottleneck(
        in_channels=arguments["num_input_channels"],
        channels=arguments["num_bottleneck_channels"],
        side_channels=arguments["num_latent_channels"],
        out_channels=arguments["num_target_channels"],
        mean_scale=case.target.startswith("M"),
    ).train(case.mode == "train")
    model.load_state_dict(convert_state(case.param))
    x = case.input["x"]
    with torch.no_grad():
        y = model.g_a(x)
        z = model.side(y)
        z_hat, z_likelihood = model.entropy_bottleneck(z)
        scales, means = model.parameters_of(z_hat)
        y_hat, y_likelihood = model.gaussian_conditional(y, scales, means)
        coded = model.decompress(*model.compress(x))
        output = model(x).output
    return {
        "output/y": y,
        "output/z": z,
        "output/z_hat": z_hat,
        "output/z_likelihood": z_likelihood,
        "output/scales": scales,
        "output/means": means,
        "output/y_hat": y_hat,
        "output/y_likelihood": y_likelihood,
        "output/out": output,
        "output/out_coded": coded,
        "output/scale_indexes": model.gaussian_conditional.indexes(scales),
        "output/scale_table": scale_table(),
        "expected/bpp_loss_y": _costs(y_likelihood),
        "expected/bpp_loss_z": _costs(z_likelihood),
        "expected/estimated_bytes_y": float(bits(y_likelihood).sum()) / 8,
        "expected/estimated_bytes_z": float(bits(z_likelihood).sum()) / 8,
    }
