"""LaBo's selectors: parity in both forms, and against a greedy that evaluates everything at every step."""

import numpy as np
import pytest
import torch

from tests.golden.cases import Case, Result, adapter
from zoo.models.concept.labo_selection import (
    best_first,
    class_scores,
    discriminability,
    greedy,
    mutual_information,
    positive,
    select,
    select_paper,
)


@adapter("labo", "LaBo.select")
def selectors(case: Case) -> Result:
    given, counts = case.arguments, case.input["num_images_per_class"]
    features, concepts = (case.input[key].double().numpy() for key in ("img_feat", "concept_feat"))
    owners = case.input["concept2cls"].long().numpy()
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts).numpy()
    scores = class_scores(features, labels, concepts, len(counts))
    per_class = -(-given["num_concepts"] // len(counts))
    scale, weight = given["submodular_weights"]

    def chosen(selection: str) -> torch.Tensor:
        return torch.tensor(
            select(scores, concepts, owners, per_class, selection=selection, scale=scale, weight=weight)
        )

    values = discriminability(scores)
    paper, gains = [], []
    for label in range(len(counts)):
        own = np.flatnonzero(owners == label)
        mine, gained = select_paper(
            values[own], concepts[own], per_class, alpha=given["paper_alpha"], beta=given["paper_beta"]
        )
        paper += own[mine].tolist()
        gains += gained
    return {
        "output/clip_score": torch.tensor(scores),
        "output/mi_score": torch.tensor(mutual_information(scores)),
        "output/submodular_idx": chosen("upstream"),
        "output/group_mi_idx": chosen("group_mi"),
        "output/mi_select_idx": torch.tensor(best_first(mutual_information(scores))),
        "output/clip_score_select_idx": torch.tensor(best_first(scores.max(1))),
        "output/paper_discriminability": torch.tensor(values),
        "output/paper_submodular_idx": torch.tensor(paper),
        "output/paper_submodular_gain": torch.tensor(gains),
    }


def plain_greedy(cover, bonus, count, weight, start):
    """Every candidate at every step, as the definition says; the first of those that only rounding tells apart."""
    best, chosen = start.copy(), []
    for _ in range(min(count, len(cover))):
        gain = bonus + weight * (np.maximum(cover, best).sum(1) - best.sum())
        rounding = 1e-14 * (weight * np.abs(best).sum() + np.abs(gain).max())
        gain[chosen] = -np.inf
        chosen.append(int((gain >= gain.max() - rounding).argmax()))
        best = np.maximum(best, cover[chosen[-1]])
    return chosen


def sentences(seed: int = 0, count: int = 40, classes: int = 3, width: int = 16):
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, classes, count)
    concepts = 1 + 0.5 * rng.normal(size=(classes, width))[owners] + 0.5 * rng.normal(size=(count, width))
    labels = np.arange(30) % classes
    features = 1 + 0.3 * rng.normal(size=(30, width))
    return class_scores(features, labels, concepts, classes), concepts, owners


COVERS = {
    "signed": lambda rng, shape: rng.normal(size=shape),
    "negative": lambda rng, shape: -rng.random(shape),
    "ties": lambda rng, shape: rng.integers(-1, 3, shape).astype(float),
    "duplicates": lambda rng, shape: rng.normal(size=shape)[rng.integers(0, shape[0], shape[0]) // 3],
    "constant": lambda rng, shape: np.full(shape, 0.1),
    "almost equal": lambda rng, shape: 0.9 + 1e-9 * rng.random(shape),
    "one large column": lambda rng, shape: rng.random(shape) + 1e6 * rng.random((shape[0], 1)) * np.eye(1, shape[1]),
}
BONUSES = {
    "random": lambda rng, count: rng.normal(size=count),
    "tiny": lambda rng, count: -4.6 + 1e-7 * rng.random(count),
    "zero": lambda rng, count: np.zeros(count),
}


@pytest.mark.parametrize("bonuses", BONUSES)
@pytest.mark.parametrize("covers", COVERS)
def test_the_fast_greedy_is_the_greedy(covers, bonuses):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        candidates, columns = rng.integers(1, 150), rng.integers(1, 200)
        cover, bonus = COVERS[covers](rng, (candidates, columns)), BONUSES[bonuses](rng, candidates)
        count, weight = int(rng.integers(1, candidates + 5)), float(rng.choice([0.0, 0.3, 1.0, 50.0]))
        for start in (np.zeros(columns), cover.min(0)):
            chosen, gains = greedy(cover, bonus, count, weight=weight, start=start)
            assert chosen == plain_greedy(cover, bonus, count, weight, start)
            reached = bonus[chosen].sum() + weight * np.maximum(start, cover[chosen].max(0)).sum()
            assert sum(gains) == pytest.approx(reached)


def test_nothing_to_choose():
    assert greedy(np.zeros((0, 3)), np.zeros(0), 2, weight=1.0, start=np.zeros(3)) == ([], [])
    assert greedy(np.eye(3), np.zeros(3), 0, weight=1.0, start=np.zeros(3)) == ([], [])


def test_ties_that_rounding_breaks_go_to_the_lowest_index():
    rng = np.random.default_rng(0)
    for _ in range(20):
        unit = rng.normal(size=(4, 9)) + 2
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        chosen, gains = greedy(unit @ unit.T, np.zeros(4), 4, weight=1.0, start=np.zeros(4))
        similarity = unit @ unit.T
        a, b = sorted(set(range(4)) - set(chosen[:2]))
        covered = similarity[chosen[:2]].max(0)
        # where the last two cover each other better than anything before, their gains are equal
        if similarity[a, b] > max(covered[a], covered[b]):
            assert chosen[2] == a
            assert gains[2] == pytest.approx(1 + similarity[a, b] - covered[a] - covered[b])


def test_gains_of_coverage_never_rise_and_add_up():
    rng = np.random.default_rng(0)
    cover = rng.random((30, 20))
    chosen, gains = greedy(cover, np.zeros(30), 12, weight=1.0, start=np.zeros(20))
    assert (np.diff(gains) <= 1e-12).all()
    assert sum(gains) == pytest.approx(cover[chosen].max(0).sum())


def test_ties_go_to_the_lowest_index():
    cover = np.repeat(np.eye(3), 2, axis=0)
    assert greedy(cover, np.zeros(6), 6, weight=1.0, start=np.zeros(3))[0] == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("selection", ["paper", "upstream", "group_mi", "random"])
def test_asking_for_all_takes_all(selection):
    scores, concepts, owners = sentences()
    chosen = select(scores, concepts, owners, 40, selection=selection)
    assert sorted(chosen) == list(range(40))
    assert (np.diff(owners[chosen]) >= 0).all()


@pytest.mark.parametrize("selection", ["paper", "upstream", "group_mi", "mi", "clip_score"])
def test_order_of_the_candidates_does_not_matter(selection):
    scores, concepts, owners = sentences()
    order = np.random.default_rng(1).permutation(40)
    chosen = select(scores, concepts, owners, 5, selection=selection, scale=10)
    again = select(scores[order], concepts[order], owners[order], 5, selection=selection, scale=10)
    assert order[again].tolist() == chosen


def test_without_coverage_the_paper_takes_the_most_discriminative():
    scores, concepts, owners = sentences()
    values = discriminability(positive(scores))
    for label in range(3):
        own = np.flatnonzero(owners == label)
        mine, _ = select_paper(values[own], concepts[own], 4, beta=0)
        assert mine == best_first(values[own])[:4].tolist()


def test_information_is_zero_where_a_concept_tells_nothing():
    column_sums = np.array([1.0, 3.0, 2.0])
    scores = np.outer([0.5, 0.3, 0.2], column_sums)
    assert np.abs(mutual_information(scores)).max() < 1e-15
    scores, _, _ = sentences()
    assert mutual_information(scores).sum() > 0
    assert np.isfinite(mutual_information(positive(scores - scores.mean()))).all()


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match=r"no training image of class \[1\]"):
        class_scores(np.ones((2, 3)), np.array([0, 2]), np.ones((4, 3)), 3)
