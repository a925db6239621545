"""Entropy models and their coder: exact round trips, honest lengths, densities that sum to one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.models.split.bounds import lower_bound
from zoo.models.split.compressive_bottlenecks import FactorizedBottleneck, HyperpriorBottleneck, bits
from zoo.models.split.entropy_tables import TOTAL, Tables, cumulative_counts, tables
from zoo.models.split.factorized_prior import FactorizedPrior
from zoo.models.split.gaussian_conditional import GaussianConditional, scale_table
from zoo.models.split.range_coder import decode, encode


def geometric_tables(ratio: float = 0.5, symbols: int = 9) -> Tables:
    distance = (torch.arange(symbols) - symbols // 2).abs()
    pmf = ratio**distance / (ratio**distance).sum()
    ones = torch.ones(1)
    return tables(0.999 * pmf[None], 0.001 * ones, (symbols * ones).int(), (-(symbols // 2) * ones).int())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**20), 2**20), max_size=60), st.floats(0.05, 0.95))
def test_what_was_encoded_is_decoded_wherever_it_lies(values, ratio):
    symbols = torch.tensor(values, dtype=torch.int32)
    rows = torch.zeros_like(symbols)
    table = geometric_tables(ratio)
    assert torch.equal(decode(encode(symbols, rows, table), rows, table), symbols)


def test_a_code_cut_short_is_refused():
    table = geometric_tables()
    symbols = torch.randint(-4, 5, (200,), dtype=torch.int32)
    data = encode(symbols, torch.zeros_like(symbols), table)
    with pytest.raises(ValueError, match="cut short"):
        decode(data[:-6], torch.zeros_like(symbols), table)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=40).filter(lambda p: sum(p) > 0.1))
def test_every_symbol_has_a_count_and_they_add_up(weights):
    edges = cumulative_counts(np.array(weights) / sum(weights))
    assert edges[0] == 0
    assert edges[-1] == TOTAL
    assert (np.diff(edges) >= 1).all()


def test_a_factorised_density_sums_to_one():
    torch.manual_seed(0)
    prior = FactorizedPrior(3).double()
    values = torch.arange(-300, 301, dtype=torch.double).expand(3, 1, -1)
    torch.testing.assert_close(
        prior.probability(values).sum(-1), torch.ones(3, 1, dtype=torch.double), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("scale", [0.11, 1.0, 7.5])
def test_a_gaussian_density_sums_to_one(scale):
    values = torch.arange(-200, 201, dtype=torch.double)
    found = GaussianConditional().likelihood(values, torch.full_like(values, scale))
    assert float(found.sum()) == pytest.approx(1, abs=1e-6)


def test_lengths_are_what_the_likelihood_says():
    torch.manual_seed(0)
    scales = torch.empty(1, 8, 16, 16).uniform_(0.3, 12)
    model = GaussianConditional().eval()
    snapped = scale_table()[model.indexes(scales).long()]
    y = snapped * torch.randn_like(scales)
    _, likelihood = model(y, snapped)
    (data,) = model.compress(y, scales)
    estimate = bits(likelihood).item() / 8
    assert abs(len(data) - estimate) <= 0.02 * estimate + 16
    assert torch.equal(model.decompress([data], scales), torch.round(y))


def test_a_trained_factorised_prior_nears_the_entropy_of_a_gaussian():
    torch.manual_seed(0)
    prior, sigma = FactorizedPrior(1).train(), 6.0
    optimizer = torch.optim.Adam(prior.parameters(), 2e-2)
    for _ in range(400):
        _, likelihood = prior(sigma * torch.randn(1, 1, 4096))
        loss = bits(likelihood).mean() / 4096 + prior.aux_loss() / 100
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        _, likelihood = prior.eval()(sigma * torch.randn(1, 1, 200_000))
    entropy = 0.5 * math.log2(2 * math.pi * math.e * sigma**2)
    assert bits(likelihood).item() / 200_000 == pytest.approx(entropy, abs=0.03)


@pytest.mark.parametrize("mean_scale", [False, True])
def test_hyperprior_bytes_give_the_output_of_forward(mean_scale):
    torch.manual_seed(0)
    model = HyperpriorBottleneck(channels=4, side_channels=4, out_channels=8, mean_scale=mean_scale).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        assert torch.equal(model.decompress(*model.compress(images)), expected.output)
    assert expected.bits.shape == expected.side_bits.shape == (2,)


def test_factorised_bytes_give_the_output_of_forward_even_beyond_the_table():
    torch.manual_seed(0)
    model = FactorizedBottleneck(channels=3, out_channels=8).eval()
    images = 500 * torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        strings, shape = model.compress(images)
        assert torch.equal(model.decompress(strings, shape), model(images).output)


@pytest.mark.parametrize(
    ("module", "parameters"),
    [
        (FactorizedBottleneck().encoder, 138_672),
        (FactorizedBottleneck().decoder, 1_164_032),
        (FactorizedBottleneck(), 1_304_168),
        (HyperpriorBottleneck().h_a, 16_000),
        (HyperpriorBottleneck(mean_scale=False).h_s, 22_400),
        (HyperpriorBottleneck().h_s, 44_800),
    ],
)
def test_published_sizes(module, parameters):
    assert sum(p.numel() for p in module.parameters()) == parameters


def test_rate_costs_nothing_to_the_encoder_once_rounded():
    model = FactorizedBottleneck(channels=3, out_channels=8)
    images = torch.randn(1, 3, 16, 16)
    for training, learns in ((True, True), (False, False)):
        model.train(training).zero_grad()
        model(images).bits.sum().backward()
        gradient = model.encoder[0].weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == learns


def test_the_bound_lets_gradient_through_upwards():
    x = torch.tensor([-1.0, 2.0, -1.0], requires_grad=True)
    y = lower_bound(x, 0.5)
    (gradient,) = torch.autograd.grad(y, x, torch.tensor([1.0, 1.0, -1.0]))
    assert y.tolist() == [0.5, 2.0, 0.5]
    assert gradient.tolist() == [0.0, 1.0, -1.0]
