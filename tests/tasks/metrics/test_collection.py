"""All concept metrics in one torchmetrics.MetricCollection: fed by keyword, each takes what it needs, none takes on the
figures of another, and each draws itself."""

import inspect
from copy import deepcopy

import pytest
import torch
from matplotlib import pyplot as plt
from torchmetrics import Metric, MetricCollection

from tests.tasks.metrics.test_interventions import COUNT, GROUPS, batch_of, model_that_reads_bits
from zoo.tasks.metrics.causal_effect import CausalConceptEffect
from zoo.tasks.metrics.completeness import Completeness
from zoo.tasks.metrics.concept_alignment import ConceptAlignment
from zoo.tasks.metrics.concept_scores import ConceptScores
from zoo.tasks.metrics.contributing_concepts import ContributingConcepts
from zoo.tasks.metrics.effective_concepts import AccuracyAtNEC, EffectiveConcepts
from zoo.tasks.metrics.intervention_curve import InterventionCurve
from zoo.tasks.metrics.leakage import ConceptLeakage
from zoo.tasks.metrics.niche_impurity import NicheImpurity
from zoo.tasks.metrics.oracle_impurity import OracleImpurity
from zoo.tasks.metrics.sparsity import Sparsity
from zoo.tasks.metrics.tcav import TCAV

plt.switch_backend("Agg")
NAMES, CLASSES = [f"c{index}" for index in range(COUNT)], list("0123")


def metrics() -> dict[str, Metric]:
    vectors = torch.eye(COUNT)
    return {
        "scores": ConceptScores(NAMES),
        "random": InterventionCurve(GROUPS, trials=2),
        "uncertain": InterventionCurve(GROUPS, policy="uncertain"),
        "given": InterventionCurve(GROUPS, policy="given"),
        "one by one": InterventionCurve([[index] for index in range(COUNT)], policy="given"),
        "wrong": InterventionCurve(GROUPS, policy="given", wrong=True),
        "ois": OracleImpurity(NAMES),
        "nis": NicheImpurity(step=0.25),
        "cas": ConceptAlignment(NAMES, samples=60, points=4),
        "nec": EffectiveConcepts(CLASSES),
        "acc at nec": AccuracyAtNEC((1, 2)),
        "ncc": ContributingConcepts(0.9),
        "ncc all": ContributingConcepts(1.0),
        "completeness": Completeness(),
        "cace": CausalConceptEffect(NAMES, CLASSES),
        "tcav": TCAV(vectors, target=0, names=NAMES),
        "tcav other": TCAV(vectors, target=1, names=NAMES),
        "sparsity": Sparsity(),
        "leakage": ConceptLeakage(epochs=5),
    }


def inputs() -> list[dict]:
    """What the metrics take of two batches, by the names that all of them share."""
    model, batch, found = model_that_reads_bits(), batch_of(240), []
    for rows in torch.arange(240).split(120):
        part = {key: value[rows] for key, value in batch.items()}
        output = model(part["image"])
        found.append(
            {
                "model": model,
                "batch": part,
                "concepts": output.concepts.detach(),
                "truth": part["concepts"],
                "label": part["label"],
                "prediction": output.prediction.detach(),
                "black_box": torch.nn.functional.one_hot(part["label"], 4) + 0.1 * output.prediction.detach().sin(),
                "latent": output.latent.detach(),
                "representations": output.latent.detach(),
                "head": model.head[0],
                "logits_of": lambda features: model.forward_features(features).prediction,
                "features": part["image"],
                "contributions": model.contributions(output),
            }
        )
    return found


@pytest.fixture(scope="module")
def collection() -> MetricCollection:
    found = MetricCollection(metrics())
    for batch in inputs():
        found.update(**batch)
    return found


def test_a_collection_gives_what_each_gives_alone(collection):
    together = collection.compute()
    for name, metric in metrics().items():
        for batch in inputs():
            taken = inspect.signature(metric.update).parameters
            metric.update(**{key: value for key, value in batch.items() if key in taken})
        alone = metric.compute()
        parts = alone if isinstance(alone, dict) else {name: alone}
        for part, value in parts.items():
            # a collection prefixes the parts of a metric where two metrics name one alike
            shared = next(key for key in (f"{name}_{part}", part) if key in together)
            torch.testing.assert_close(together[shared], value, msg=f"{name} {part}")


def test_metrics_that_agree_on_one_batch_stay_apart():
    batch = inputs()[0]
    silent = deepcopy(batch["model"])
    torch.nn.init.zeros_(silent.head[0].weight)
    pair = MetricCollection({name: metrics()[name] for name in ("given", "wrong")})
    pair.update(model=silent, batch=batch["batch"])
    pair.update(model=batch["model"], batch=batch["batch"])
    found = pair.compute()
    assert found["given_accuracy"][-1] > found["wrong_accuracy"][-1]


@pytest.mark.parametrize("name", metrics())
def test_each_draws_itself_and_says_what_it_is(collection, name):
    metric = collection[name]
    figure, axes = metric.plot()
    assert axes.get_xlabel() or axes.get_xticklabels()
    plt.close(figure)
    account = f"{inspect.getmodule(metric).__doc__} {type(metric).__doc__}"
    assert "arXiv" in account or "JMLR" in account
    assert type(metric).update.__doc__ or set(inspect.signature(metric.update).parameters) == {"model", "batch"}


def test_effective_concepts_of_a_head():
    metric = EffectiveConcepts(["a", "b"])
    head = torch.nn.Linear(4, 2)
    head.weight.data = torch.tensor([[1.0, -2.0, 0.0, 0.0], [0.0, 1e-6, 0.0, 3.0]])
    metric.update(head)
    found = metric.compute()
    assert (found["per_class"].tolist(), found["nec"].item()) == ([2, 1], 1.5)
