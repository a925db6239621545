"""The M2 sequence mixer: parity, the long convolution against its matrix, causality, parameters, errors."""

import pytest
import torch

from tests.golden.cases import Case, adapter
from zoo.models.vision.m2_mixer import LongConvolution, M2SequenceMixer


@adapter("monarch", "M2SequenceMixer")
def m2_sequence_mixer(case: Case) -> dict:
    given = case.arguments
    mixer = M2SequenceMixer(
        given["d_model"],
        length=given["l_max"],
        bidirectional=given["bidirectional"],
        residual=given["residual_long_conv"],
        order=given["hyena_filter_order"],
        position_features=given["hyena_emb_dim"],
        frequency=given["hyena_w"],
        frequency_scale=given["hyena_w_mod"],
        norm=given["hyena_training_additions"],
        dropout=given["dropout"],
    ).eval()
    mixer.load_state_dict(case.param)
    x = case.input["x"].requires_grad_()
    y = mixer(x)
    forward, reverse = mixer.filter_fn.filters(x.shape[1])
    return {
        "output/y": y,
        "output/k_fwd": forward,
        "output/k_rev": reverse,
        "output/long_conv_of_v": mixer.filter_fn(case.input["v"]),
        "expected/params_unique": sum(value.numel() for value in mixer.parameters()),
        **case.gradients(y.sum(), {"grad/x": x}),
    }


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_long_convolution_is_its_matrix(bidirectional, length):
    torch.manual_seed(0)
    layer = LongConvolution(3, length=13, order=4, bidirectional=bidirectional)
    forward, reverse = layer.filters(length)
    matrix = torch.zeros(3, length, length)
    for i in range(length):
        for j in range(length):
            if j <= i:
                matrix[:, i, j] += forward[:, i - j].detach()
            elif reverse is not None:
                matrix[:, i, j] += reverse[:, j - i - 1].detach()
            matrix[:, i, j] += (i == j) * layer.bias.detach()
    u = torch.randn(2, 3, length)
    torch.testing.assert_close(layer(u), torch.einsum("cij,bcj->bci", matrix, u), atol=1e-4, rtol=1e-4)


def sees(mixer: M2SequenceMixer, length: int) -> torch.Tensor:
    """(output position, input position) bool."""
    jacobian = torch.autograd.functional.jacobian(mixer, torch.randn(1, length, 4))[0, :, :, 0]
    return jacobian.abs().amax((1, 3)) > 1e-6


@pytest.mark.parametrize("residual", [True, False])
def test_who_sees_whom(residual):
    torch.manual_seed(0)
    causal = sees(M2SequenceMixer(4, length=9, order=4, bidirectional=False, residual=residual), 9)
    assert torch.equal(causal, torch.ones(9, 9).tril().bool())
    assert bool(sees(M2SequenceMixer(4, length=9, order=4, residual=residual), 9).all())


def test_parameters_of_the_published_mixer():
    mixer = M2SequenceMixer(768, length=196, order=128, position_features=5)
    assert sum(value.numel() for value in mixer.parameters()) == 2_903_720


def test_dropout_acts_in_training_only():
    mixer = M2SequenceMixer(4, length=9, order=4, norm=True, dropout=0.5)
    x = torch.randn(1, 9, 4)
    assert not torch.equal(mixer(x), mixer(x))
    assert torch.equal(mixer.eval()(x), mixer(x))


def test_errors():
    with pytest.raises(ValueError, match="10 positions, but the filters were made for 9"):
        M2SequenceMixer(4, length=9, order=4)(torch.zeros(1, 10, 4))
    with pytest.raises(ValueError, match="choose an odd number"):
        LongConvolution(3, length=9, position_features=4)
