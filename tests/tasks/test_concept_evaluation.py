"""What a model's concepts are worth, on a model whose concepts and head are known."""

import pytest
import torch

from tests.tasks.metrics.test_interventions import COUNT, GROUPS, batch_of, model_that_reads_bits
from zoo.models.backbone import Identity
from zoo.models.concept.cbm import CBM
from zoo.models.concept.ecbm import ECBM
from zoo.tasks.concept_evaluation import encoded, in_batches, measure_concepts, some, spoken_for


def measured(**options) -> dict:
    rows = encoded(model_that_reads_bits(), [batch_of()])
    settings = {"named": True, "train_rows": lambda count: [batch_of(count)]} | options
    return measure_concepts(model_that_reads_bits(), rows, num_classes=4, groups=GROUPS, **settings)


def test_all_figures_of_a_model_that_heeds_its_concepts():
    found, batch = measured(), batch_of()
    plain = (model_that_reads_bits()(batch["image"]).prediction.argmax(1) == batch["label"]).float().mean()
    assert found["acc_all_wrong"] == 0
    assert found["correction_gain"] == pytest.approx(1 - float(plain))
    assert [count for count, _ in found["corrections"]] == [0, 1, 2, 3]
    assert found["corrections"][0][1] == found["corrections_wrong"][0][1] == pytest.approx(float(plain))
    assert found["corrections_uncertain"][-1][1] == 1
    # the true concepts say all of the label
    assert found["leakage"] < 0
    # four directions of four features hold all that they hold
    assert found["acc_nec5"] == pytest.approx(found["acc_nec5_random"], abs=0.02)
    assert found["acc_nec5"] > 0.5
    assert "not_measured" not in found


def test_without_training_rows_the_reason_is_given():
    found = measured(train_rows="nobody knows them")
    assert found["not_measured"] == {"acc_nec5": "nobody knows them"}
    assert "acc_nec5" not in found
    assert "acc_all_wrong" in found


def test_other_concepts_than_the_data_s_have_only_the_yardstick():
    assert set(measured(named=False)) == {"acc_nec5", "acc_nec5_random"}


def test_scores_that_are_not_finite_are_a_reason():
    rows = batch_of()
    rows["image"][3] = float("nan")
    assert "not finite" in measured(train_rows=lambda count: [rows])["not_measured"]["acc_nec5"]


def test_a_costly_model_is_corrected_on_fewer_rows(monkeypatch):
    monkeypatch.setattr(CBM, "costly", True)
    found = measured()
    assert [count for count, _ in found["corrections"]] == [0, 1, 2, 3]
    assert [count for count, _ in found["corrections_wrong"]] == [0, 3]
    assert found["acc_all_wrong"] == 0


def test_what_speaks_for_a_class_is_the_mean_of_weight_times_concept():
    model = model_that_reads_bits()
    rows = encoded(model, [batch_of()])
    found = spoken_for(model, rows, num_classes=4)
    weight, seen = model.head[0].weight, model.forward_batch(rows).latent
    wanted = torch.stack([weight[label] * seen[rows["label"] == label].mean(0) for label in range(4)])
    torch.testing.assert_close(found, wanted.detach())


def test_a_model_without_an_account_of_its_own_is_asked_by_setting_concepts(monkeypatch):
    torch.manual_seed(0)
    names = [f"c{index}" for index in range(COUNT)]
    model = ECBM(backbone=Identity(in_channels=COUNT), num_outputs=4, concept_names=names, hidden=8, steps=5).eval()
    assert spoken_for(model, encoded(model, [batch_of(20)]), num_classes=4) is None
    monkeypatch.setattr(ECBM, "costly", False)
    found = spoken_for(model, encoded(model, [batch_of(20)]), num_classes=4)
    assert found.shape == (4, COUNT)
    torch.testing.assert_close(found.sum(0), torch.zeros(COUNT), atol=1e-5, rtol=0)


def test_rows_are_cut_and_chosen():
    rows = {"label": torch.arange(10), "features": torch.arange(10.0)[:, None]}
    assert [len(part["label"]) for part in in_batches(rows, 4)] == [4, 4, 2]
    chosen = some(rows, 6)
    assert len(set(chosen["label"].tolist())) == 6
    assert torch.equal(chosen["features"][:, 0], chosen["label"].float())
    assert some(rows, 10) is rows
    with pytest.raises(ValueError, match="empty"):
        encoded(model_that_reads_bits(), [])
