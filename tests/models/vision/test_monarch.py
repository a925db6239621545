"""Monarch and block-diagonal layers: parity, the dense matrix, parameters, blocks that do not divide, errors."""

import pytest
import torch
from torch import nn

from tests.golden.cases import Case, adapter
from zoo.kernels.monarch import project
from zoo.models.vision.monarch import BlockdiagLinear, MonarchLinear, StructuredLinear


def layer_of(case: Case, kind: type[StructuredLinear]) -> StructuredLinear:
    given = case.arguments
    layer = kind(given["in_features"], given["out_features"], blocks=given["nblocks"], bias=given["bias"])
    layer.load_state_dict(case.param)
    return layer


@adapter("monarch", "MonarchLinear")
def monarch_linear(case: Case) -> dict:
    layer = layer_of(case, MonarchLinear)
    parameters = layer.blkdiag1.numel() + layer.blkdiag2.numel()
    saving = parameters / (layer.in_features * layer.out_features)
    return {
        "output/y": layer(case.input["x"]),
        "output/dense_weight": layer.dense_weight(),
        "expected/params": sum(value.numel() for value in layer.parameters()),
        "expected/saving": saving,
    }


@adapter("monarch", "BlockdiagLinear")
def blockdiag_linear(case: Case) -> dict:
    return {"output/y": layer_of(case, BlockdiagLinear)(case.input["x"])}


@pytest.mark.parametrize(("inputs", "outputs", "blocks"), [(12, 20, 4), (20, 12, 4), (10, 13, 3), (7, 7, 1), (5, 5, 5)])
def test_a_monarch_layer_is_its_dense_matrix(inputs, outputs, blocks):
    torch.manual_seed(0)
    layer = MonarchLinear(inputs, outputs, blocks=blocks)
    x = torch.randn(2, 3, inputs)
    torch.testing.assert_close(layer(x), x @ layer.dense_weight().t() + layer.bias)


@pytest.mark.parametrize("kind", [MonarchLinear, BlockdiagLinear])
def test_any_number_of_leading_dimensions(kind):
    layer, x = kind(10, 13, blocks=3), torch.randn(2, 3, 10)
    torch.testing.assert_close(torch.stack([layer(row) for row in x[1]]), layer(x)[1])


def test_a_block_sees_its_own_inputs_alone():
    layer = BlockdiagLinear(12, 8, blocks=4, bias=False)
    jacobian = torch.autograd.functional.jacobian(layer, torch.randn(1, 12)).reshape(8, 12)
    for row, column in torch.nonzero(jacobian).tolist():
        assert row // 2 == column // 3
    torch.testing.assert_close(torch.block_diag(*layer.weight), jacobian)


def test_a_projected_linear_layer_comes_near_it():
    """A dense layer that is a Monarch matrix is taken over exactly."""
    torch.manual_seed(0)
    ours = MonarchLinear(16, 16, blocks=4, bias=False)
    w1, w2 = project(ours.dense_weight().detach())
    again = MonarchLinear(16, 16, blocks=4, bias=False)
    again.load_state_dict({"blkdiag1": w1, "blkdiag2": w2})
    torch.testing.assert_close(again.dense_weight(), ours.dense_weight(), atol=1e-5, rtol=1e-4)


def test_parameters_of_the_published_mlps():
    def count(kind: type[StructuredLinear]) -> int:
        layers = nn.ModuleList([kind(768, 3072, blocks=4), kind(3072, 768, blocks=4)])
        return sum(value.numel() for value in layers.parameters())

    assert count(BlockdiagLinear) == 1_183_488
    assert count(MonarchLinear) == 1_478_400


@pytest.mark.parametrize("kind", [BlockdiagLinear, MonarchLinear])
def test_gradients_and_other_precisions(kind):
    layer = kind(6, 10, blocks=4).double()
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert layer.float()(torch.randn(2, 6)).dtype == torch.float32
    assert layer.bfloat16()(torch.randn(0, 6).bfloat16()).shape == (0, 10)


def test_errors():
    with pytest.raises(ValueError, match="choose 1 to 6, the smaller side"):
        MonarchLinear(6, 10, blocks=7)
