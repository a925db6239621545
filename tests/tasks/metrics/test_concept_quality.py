"""Metrics of concepts and their representations: known values, extremes, and scikit-learn."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.metrics import f1_score, roc_auc_score

from zoo.models.concept.nec import effective_concepts, truncate
from zoo.tasks.metrics.auc import area_under_roc
from zoo.tasks.metrics.completeness import Completeness
from zoo.tasks.metrics.concept_alignment import ConceptAlignment, k_medoids
from zoo.tasks.metrics.concept_scores import ConceptScores
from zoo.tasks.metrics.contributing_concepts import ContributingConcepts, contributing_concepts
from zoo.tasks.metrics.effective_concepts import AccuracyAtNEC, truncate_as_released
from zoo.tasks.metrics.leakage import ConceptLeakage
from zoo.tasks.metrics.niche_impurity import NicheImpurity, niche_impurity_curve
from zoo.tasks.metrics.oracle_impurity import OracleImpurity, oracle_impurity
from zoo.tasks.metrics.sparsity import Sparsity, hoyer
from zoo.tasks.metrics.tcav import TCAV, directional_derivatives

plt.switch_backend("Agg")
NAMES = ("wing", "bar", "stem")


def concepts_of(size: int = 400, seed: int = 0) -> torch.Tensor:
    return (torch.rand(size, 3, generator=torch.Generator().manual_seed(seed)) > 0.5).float()


def noisy(concepts: torch.Tensor, scale: float) -> torch.Tensor:
    return (concepts + scale * torch.randn(concepts.shape, generator=torch.Generator().manual_seed(9))).sigmoid()


def test_auc_with_ties_agrees_with_scikit_learn():
    scores = torch.randint(0, 5, (60, 4), generator=torch.Generator().manual_seed(0)) / 5
    target = torch.rand(60, 4, generator=torch.Generator().manual_seed(1)) > 0.6
    wanted = [roc_auc_score(target[:, k], scores[:, k]) for k in range(4)]
    np.testing.assert_allclose(area_under_roc(scores, target), wanted)
    assert area_under_roc(scores[:, :1], torch.ones(60, 1)).isnan().all()
    assert area_under_roc(torch.zeros(60, 1), target[:, :1]).item() == 0.5


def test_concept_scores_over_batches():
    truth = concepts_of()
    scores = noisy(truth, 1.0)
    metric = ConceptScores(NAMES)
    for part in range(0, 400, 150):
        metric.update(scores[part : part + 150], truth[part : part + 150])
    found = metric.compute()
    predicted = scores > 0.5
    np.testing.assert_allclose(found["accuracy"], (predicted == truth.bool()).float().mean(0))
    np.testing.assert_allclose(found["auc"], [roc_auc_score(truth[:, k], scores[:, k]) for k in range(3)], rtol=1e-6)
    np.testing.assert_allclose(found["f1"], [f1_score(truth[:, k], predicted[:, k]) for k in range(3)], rtol=1e-6)
    assert found["all_right"] <= found["accuracy"].min()
    figure, ax = metric.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == list(NAMES)
    plt.close(figure)


def test_contributing_concepts():
    contributions = torch.tensor([[4.0, 0.0], [-3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])[None]
    assert contributing_concepts(contributions, 0.4).tolist() == [[1, 0]]
    assert contributing_concepts(contributions, 0.7).tolist() == [[2, 0]]
    assert contributing_concepts(contributions, 0.71).tolist() == [[3, 0]]
    assert contributing_concepts(contributions, 1.0).tolist() == [[4, 0]]
    metric = ContributingConcepts(0.7, groups=[[0, 1], [2, 3]], predicted_only=True)
    metric.update(contributions, torch.tensor([[1.0, 0.0]]))
    assert metric.compute() == 1
    with pytest.raises(ValueError, match="coverage=0"):
        ContributingConcepts(0)


def test_with_full_coverage_it_is_nec():
    weight = truncate(torch.randn(5, 12, generator=torch.Generator().manual_seed(2)), 4)
    activations = torch.rand(30, 12) + 0.1
    metric = ContributingConcepts(1.0)
    metric.update(activations[:, :, None] * weight.T, activations @ weight.T)
    assert metric.compute().item() == pytest.approx(effective_concepts(weight))


def test_accuracy_at_nec():
    torch.manual_seed(0)
    latent = torch.randn(300, 8)
    head = torch.nn.Linear(8, 4)
    with torch.no_grad():
        head.weight.mul_(0.01)
        head.weight[:, :4] += torch.eye(4)
    label = latent[:, :4].argmax(1)
    metric = AccuracyAtNEC((1, 4, 8))
    metric.update(latent[:100], head, label[:100])
    metric.update(latent[100:], head, label[100:])
    found = metric.compute()["accuracy"]
    assert found[0] > 0.9
    dense = (head(latent).argmax(1) == label).float().mean()
    assert found[2] == dense
    plt.close(metric.plot()[0])


@pytest.mark.parametrize("effective", [1, 3, 6])
def test_both_truncations_agree_where_nothing_is_rounded(effective):
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(truncate(weight, effective), truncate_as_released(weight, effective))


def test_hoyer():
    found = hoyer(torch.tensor([[0.0, 3.0, 0.0, 0.0], [2.0, 2.0, -2.0, 2.0], [0.0, 0.0, 0.0, 0.0]]))
    assert found.tolist() == pytest.approx([1, 0, 0])
    metric = Sparsity()
    metric.update(torch.tensor([[[0.0, 1.0], [3.0, 1.0]]]), torch.tensor([[2.0, 1.0]]))
    assert metric.compute().item() == pytest.approx(1)


def test_completeness():
    torch.manual_seed(0)
    target, scores = torch.randint(0, 3, (200,)), torch.randn(200, 3)
    metric = Completeness()
    metric.update(scores, scores, target)
    assert metric.compute() == 1
    good = torch.nn.functional.one_hot(target, 3) + 0.1 * scores
    metric = Completeness()
    metric.update(scores, good, target)
    assert 0.4 < metric.compute() < 0.6


def test_tcav_of_a_linear_head_is_the_sign_of_its_weight():
    torch.manual_seed(0)
    head, features = torch.nn.Linear(5, 3), torch.randn(20, 5)
    vectors = torch.stack([head.weight[1], -head.weight[1]]).detach()
    with torch.inference_mode():
        slopes = directional_derivatives(head, features, vectors, target=1)
        metric = TCAV(vectors, target=1, names=("along", "against"))
        metric.update(head, features)
    torch.testing.assert_close(slopes, (head.weight[1] @ vectors.T).expand(20, 2).detach())
    assert metric.compute().tolist() == [1, 0]
    plt.close(metric.plot()[0])


def test_oracle_impurity_is_low_for_the_truth_and_high_for_a_mixture():
    concepts = concepts_of()
    pure, mixed = OracleImpurity(NAMES), OracleImpurity(NAMES)
    pure.update(concepts, concepts)
    # every representation carries all concepts
    mixed.update(concepts[:, None].expand(-1, 3, -1) + 0.1 * torch.randn(400, 3, 3), concepts)
    assert pure.compute() < 0.1
    assert mixed.compute() > 0.6
    assert oracle_impurity(torch.ones(4, 4), torch.zeros(4, 4)) == 2
    plt.close(mixed.plot()[0])


def test_niche_impurity_is_high_where_a_concept_lies_outside_its_niche():
    concepts = concepts_of(800)
    train, test = slice(400), slice(400, None)
    pure = concepts[..., None]
    curve = niche_impurity_curve(lambda z: z[..., 0], (pure[train], concepts[train]), (pure[test], concepts[test]))
    assert curve.shape == (20,)
    assert (curve == 0.5).all()
    # every representation carries half of the other concepts: correlation 0.41 with them, 0.82 with its own
    share = torch.full((3, 3), 0.5).fill_diagonal_(1.0)
    mixed = (concepts @ share)[..., None]
    parts = (mixed[train], concepts[train]), (mixed[test], concepts[test])
    curve = niche_impurity_curve(lambda z: z.sum(1).expand(-1, 3), *parts)
    assert (curve[:6] == 0.5).all()
    assert (curve[11:16] > 0.6).all()


def test_niche_impurity_of_noisy_concepts_is_chance():
    concepts = concepts_of(800)
    metric = NicheImpurity(step=0.1)
    metric.update(noisy(concepts, 0.2), concepts)
    assert 0.4 < metric.compute() < 0.55
    plt.close(metric.plot()[0])


def test_k_medoids_finds_separate_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    wanted = np.repeat(np.arange(3), 20)
    points = centres[wanted] + rng.normal(0, 0.5, (60, 2))
    labels = k_medoids(np.linalg.norm(points[:, None] - points[None], axis=2), 60)
    assert len(set(labels)) == 60
    two = k_medoids(np.linalg.norm(points[:40, None] - points[None, :40], axis=2), 2)
    assert len(set(two[:20])) == len(set(two[20:])) == 1
    assert two[0] != two[20]


def test_concept_alignment():
    concepts = concepts_of(200)
    aligned, random = ConceptAlignment(NAMES), ConceptAlignment(NAMES)
    aligned.update(concepts + 0.01 * torch.randn(200, 3), concepts)
    random.update(torch.randn(200, 3, 4), concepts)
    assert aligned.compute()["mean"] > 0.98
    assert random.compute()["mean"] < 0.8
    plt.close(aligned.plot()[0])


def test_leakage_sees_what_the_concepts_do_not_say():
    torch.manual_seed(0)
    concepts, label = concepts_of(1000), torch.randint(0, 2, (1000,))
    clean, leaky = ConceptLeakage(), ConceptLeakage()
    clean.update(concepts, concepts, label)
    leaky.update(concepts + 0.2 * (label[:, None] - 0.5), concepts, label)
    assert abs(clean.compute()["leakage"]) < 0.02
    assert leaky.compute()["leakage"] > 0.4
