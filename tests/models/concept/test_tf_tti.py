"""TF-TTI: planted shifts are found and undone, and nothing else changes."""

from types import SimpleNamespace

import pytest
import torch

from zoo.models.backbone import Identity
from zoo.models.concept.cbm import CBM
from zoo.models.concept.domain_repair import Repair, Support, class_statistics, fit_repair
from zoo.models.concept.tf_tti import TFTTI, head_weights, read_support, repaired
from zoo.models.contract import Intervention

CLASSES, CONCEPTS = 4, 8


def domain(per_class: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Class t has concepts t and t + 4 near 1 and the others near 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    concepts = torch.eye(CLASSES).repeat(1, 2)[labels]
    noise = 0.05 * torch.rand(len(labels), CONCEPTS, generator=generator)
    return (concepts - noise).abs(), labels


def support_of(concepts, labels, *, weight=None) -> Support:
    weight = torch.eye(CLASSES).repeat(1, 2) if weight is None else weight
    return Support(concepts, labels, weight, torch.zeros(len(labels), CLASSES))


SOURCE = class_statistics(*domain(50, seed=1), num_classes=CLASSES)


def accuracy(support, repair) -> float:
    return support.right(repair).float().mean().item()


def test_without_a_mistake_nothing_is_changed():
    found = fit_repair(support_of(*domain(4)), SOURCE)
    assert not found.masked.any()
    assert torch.equal(found.gain, torch.ones(CONCEPTS))


def test_without_support_nothing_is_changed():
    found = fit_repair(support_of(torch.zeros(0, CONCEPTS), torch.zeros(0, dtype=torch.long)), SOURCE)
    assert not found.masked.any()
    assert torch.equal(found.gain, torch.ones(CONCEPTS))


def test_a_planted_shift_is_masked_and_undone():
    (concepts, labels), (test, truth) = domain(4), domain(20, seed=2)
    shift = torch.zeros(CONCEPTS).index_fill(0, torch.tensor(2), 3.0)
    support, unseen = support_of(concepts + shift, labels), support_of(test + shift, truth)
    assert accuracy(unseen, Repair.identity(torch.zeros(CONCEPTS))) == pytest.approx(1 / CLASSES)
    found = fit_repair(support, SOURCE)
    assert found.masked.nonzero().flatten().tolist() == [2]
    assert accuracy(unseen, found) == 1


def test_a_planted_weakness_of_the_only_speaker_is_amplified():
    weight = torch.cat([torch.eye(CLASSES), torch.zeros(CLASSES, CLASSES)], dim=1)
    fade = torch.ones(CONCEPTS).index_fill(0, torch.tensor(1), 0.2)
    (concepts, labels), (test, truth) = domain(4), domain(20, seed=2)
    offset = torch.tensor([0.3, 0.0, 0.0, 0.0])
    support = Support(concepts * fade, labels, weight, offset.expand(len(labels), -1))
    unseen = Support(test * fade, truth, weight, offset.expand(len(truth), -1))
    found = fit_repair(support, SOURCE, max_gain=10.0)
    assert 3 <= found.gain[1] <= 5.5
    assert not found.masked.any()
    assert accuracy(unseen, found) == 1
    assert fit_repair(support, SOURCE, max_gain=3.0).gain[1] == 3


def test_permuting_concepts_permutes_the_repair():
    concepts, labels = domain(4)
    concepts[:, 5] += 2.5
    order = torch.randperm(CONCEPTS, generator=torch.Generator().manual_seed(3))
    plain = fit_repair(support_of(concepts, labels), SOURCE)
    source = type(SOURCE)(SOURCE.mean[:, order], SOURCE.std[:, order])
    weight = torch.eye(CLASSES).repeat(1, 2)[:, order]
    permuted = fit_repair(support_of(concepts[:, order], labels, weight=weight), source)
    assert torch.equal(permuted.masked, plain.masked[order])
    torch.testing.assert_close(permuted.gain, plain.gain[order])


def test_a_masked_concept_is_absent_or_average():
    concepts, labels = domain(4)
    concepts[:, 2] += 3
    found = fit_repair(support_of(concepts, labels), SOURCE, mask_value="source_mean")
    seen = found.apply(concepts)
    torch.testing.assert_close(seen[:, 2], SOURCE.mean.mean(0)[2].expand(len(labels)))


def model(kind=TFTTI, **arguments):
    torch.manual_seed(0)
    names = tuple(f"c{k}" for k in range(CONCEPTS))
    built = kind(backbone=Identity(in_channels=CONCEPTS), num_outputs=CLASSES, concept_names=names, **arguments)
    built.concept_layer.weight.data.copy_(8 * torch.eye(CONCEPTS))
    built.concept_layer.bias.data.fill_(-4)
    built.head[0].weight.data.copy_(torch.eye(CLASSES).repeat(1, 2))
    built.head[0].bias.data.zero_()
    return built.eval()


def batches(concepts, labels):
    return [{"image": concepts[rows], "label": labels[rows]} for rows in torch.arange(len(labels)).split(7)]


def shifted(per_class, seed=0):
    concepts, labels = domain(per_class, seed=seed)
    concepts[:, :3] += torch.tensor([0.0, 0.0, 2.0])
    concepts[:, 6] += 2
    return concepts, labels


def test_a_model_is_repaired_for_the_target_and_untouched_on_the_source():
    built, (source, truth) = model(max_masked=0.25), domain(10, seed=5)
    built.finish_stage(built.stages()[-1], SimpleNamespace(train_dataloader=lambda: batches(source, truth)))
    before, state = built(source), {k: v.clone() for k, v in built.state_dict().items() if "repair" not in k}
    target, labels = shifted(20, seed=6)
    worse = (built(target).prediction.argmax(1) == labels).float().mean()
    found = built.adapt(batches(*shifted(4)))
    assert found.masked.any()
    assert set(found.masked.nonzero().flatten().tolist()) <= {2, 6}
    assert (built(target).prediction.argmax(1) == labels).float().mean() == 1 > worse
    assert all(torch.equal(built.state_dict()[key], value) for key, value in state.items())
    saved = model(**built.fitted_arguments())
    saved.load_state_dict(built.state_dict())
    assert torch.equal(saved(target).prediction, built(target).prediction)
    built.domain = "source"
    assert torch.equal(built(source).prediction, before.prediction)


def test_corrections_stand_and_an_empty_mask_changes_no_bit():
    built, (images, _) = model(max_masked=0.25), shifted(4)
    for name, value in vars(Repair(torch.arange(CONCEPTS) == 6, torch.ones(CONCEPTS), torch.zeros(CONCEPTS))).items():
        built.get_buffer(f"repair_{name}").copy_(value)
    built.domain = "target"
    plain, none = built(images), torch.zeros(CONCEPTS, dtype=torch.bool)
    empty = built(images, Intervention(none, torch.ones(CONCEPTS)))
    assert torch.equal(empty.prediction, plain.prediction)
    corrected = built(images, Intervention(none.index_fill(0, torch.tensor(2), True), torch.ones(CONCEPTS)))
    assert (corrected.latent[:, 2] == 1).all()
    assert (corrected.latent[:, 6] == 0).all()
    torch.testing.assert_close(corrected.prediction, built.head(corrected.latent))


def test_any_model_with_a_linear_head_can_be_repaired():
    built, (images, labels) = model(CBM), shifted(4)
    support = read_support(built, batches(images, labels))
    torch.testing.assert_close(support.weight, built.head[0].weight.detach())
    torch.testing.assert_close(support.logits(Repair.identity(torch.zeros(CONCEPTS))), built(images).prediction)
    repair = Repair(torch.arange(CONCEPTS) == 2, torch.full((CONCEPTS,), 2.0), torch.zeros(CONCEPTS))
    output = repaired(built, built(images), repair)
    torch.testing.assert_close(output.prediction, built.head(output.latent))


def test_what_cannot_be_repaired_is_refused():
    names = tuple(f"c{k}" for k in range(CONCEPTS))
    deep = CBM(backbone=Identity(in_channels=8), num_outputs=4, concept_names=names, head_hidden=[5])
    with pytest.raises(ValueError, match="no linear head"):
        head_weights(deep, width=CONCEPTS)
    with pytest.raises(ValueError, match="no image of the new domain"):
        read_support(model(CBM), [])
