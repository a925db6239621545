"""Occlusion: a model that reads one known patch, places that leave no pixel out, batches, and words."""

import pytest
import torch

from zoo.occlusion import Occlusion, in_a_line, occlude

BRIGHT = (slice(None), slice(None), slice(20, 28), slice(4, 12))


def reads_one_patch(images):
    """Two classes, by the brightness of eight by eight pixels."""
    seen = images[BRIGHT].mean((1, 2, 3))
    return torch.stack([4 * seen, torch.zeros_like(seen)], 1)


def test_the_drop_is_where_the_model_looks():
    found = occlude(reads_one_patch, torch.ones(3, 32, 32))
    assert (found.patch, found.stride, found.drops.shape) == ((8, 8), (4, 4), (7, 7))
    whole = torch.tensor(4.0).sigmoid().item()
    assert found.probability == pytest.approx(whole)
    assert found.drops[5, 1].item() == pytest.approx(whole - 0.5)
    assert found.strongest == (24 / 32, 8 / 32)
    # a place that hides a half and one that hides a quarter of what is read
    assert found.drops[5, 2].item() == pytest.approx(whole - torch.tensor(2.0).sigmoid().item())
    assert found.drops[4, 0].item() == pytest.approx(whole - torch.tensor(3.0).sigmoid().item())
    touched = torch.zeros(7, 7, dtype=torch.bool)
    touched[4:7, 0:3] = True
    assert torch.equal(found.drops != 0, touched)
    assert in_a_line(found) == f"read most from the lower left: without it 50.0% instead of {whole:.1%}"


def test_grey_is_what_a_place_becomes():
    image = torch.full((1, 32, 32), 0.5)
    assert occlude(reads_one_patch, image, grey=torch.full((1, 1, 1), 0.5)).drops.abs().max() == 0
    assert occlude(reads_one_patch, image, grey=1.0).drops.min() < -0.05


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 8), (28, 28), (30, 61), (224, 224)])
def test_every_pixel_is_hidden_once_at_least(shape):
    covered = torch.zeros(shape, dtype=torch.bool)
    found = occlude(lambda images: torch.zeros(len(images), 2), torch.zeros(1, *shape))
    for top in found.tops:
        for left in found.lefts:
            assert top + found.patch[0] <= shape[0] >= 1
            assert left + found.patch[1] <= shape[1]
            covered[top : top + found.patch[0], left : left + found.patch[1]] = True
    assert covered.all()
    assert in_a_line(found) == "no place alone decides"


def test_batches_change_nothing():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(121, 5)).eval()
    image = torch.randn(1, 11, 11)
    sizes = []

    def model(images):
        sizes.append(len(images))
        return network(images)

    whole = occlude(model, image)
    assert sizes == [1, 64, 17]
    for batch_size in (1, 5, 100):
        torch.testing.assert_close(occlude(model, image, batch_size=batch_size).drops, whole.drops, atol=1e-6, rtol=0)
    assert not whole.drops.requires_grad


@pytest.mark.parametrize(("greatest", "decides"), [(0.0099, False), (0.0101, True)])
def test_a_drop_below_one_point_decides_nothing(greatest, decides):
    drops = torch.tensor([[-0.5, greatest]])
    found = Occlusion(0.6, (4, 4), (4, 4), [0], [0, 4], drops)
    assert found.decides == decides
    assert in_a_line(found).startswith("read most from the middle right" if decides else "no place")
