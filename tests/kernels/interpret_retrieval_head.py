"""The probed-logits kernel in the interpreter, with guard bands."""

import pytest
import torch

from tests.kernels.harness import GuardBands, close
from zoo.kernels.retrieval_head import arrange, balanced_clusters, reference, retrieve
from zoo.kernels.retrieval_head import triton as kernels

SHAPES = [
    (1, 1, 1, 1, 1),
    (3, 4, 16, 5, 7),
    (2, 3, 33, 9, 130),
    (5, 70, 1, 80, 256),
    (0, 2, 4, 5, 8),
    (2, 0, 4, 5, 8),
]


@pytest.mark.parametrize(("tokens", "probes", "size", "clusters", "dim"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_probed_logits(tokens, probes, size, clusters, dim, dtype):
    torch.manual_seed(0)
    hidden, rows = torch.randn(tokens, dim, dtype=dtype), torch.randn(clusters, size, dim, dtype=dtype)
    chosen = torch.randint(clusters, (tokens, probes))
    with GuardBands() as guard:
        logits = kernels.probed_logits(guard.input(hidden), guard.input(rows), guard.input(chosen))
        guard.check(logits)
    close(logits, reference.probed_logits(hidden, rows, chosen), tolerance=2e-6)


def test_the_operator_takes_the_kernel():
    torch.manual_seed(0)
    weight, hidden = torch.randn(50, 8), torch.randn(4, 8)
    head = arrange(weight, balanced_clusters(weight, 7))
    found = retrieve(hidden, head, probes=len(head.directions), k=3)
    assert torch.equal(found.label, (hidden @ weight.t()).topk(3).indices)
