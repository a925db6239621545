"""Parity of the concept metrics with the released codes."""

import torch
from torch import nn

from tests.golden.cases import Case, adapter
from zoo.models.backbone import Identity
from zoo.models.concept.cbm import CBM
from zoo.models.concept.nec import effective_concepts
from zoo.models.contract import Intervention
from zoo.tasks.metrics.causal_effect import causal_effect
from zoo.tasks.metrics.completeness import Completeness, macro_auc
from zoo.tasks.metrics.contributing_concepts import ContributingConcepts
from zoo.tasks.metrics.effective_concepts import effective_groups, truncate_as_released
from zoo.tasks.metrics.niche_impurity import niche_impurity_curve
from zoo.tasks.metrics.oracle_impurity import oracle_impurity
from zoo.tasks.metrics.tcav import TCAV


@adapter("concept_metrics", "nec_truncation")
def nec_truncation(case: Case) -> dict:
    result: dict = {}
    for count in case.arguments["nec_targets"]:
        weight = truncate_as_released(case.param["weight"], count)
        result |= {f"output/weight_nec{count}": weight, f"output/nec_of_{count}": effective_concepts(weight)}
    return result


@adapter("concept_metrics", "nis_ois")
def nis_ois(case: Case) -> dict:
    given, rows, step = case.input, case.arguments["n_train"], case.arguments["delta_beta"]
    weight, bias = case.param["predictor_W"], case.param["predictor_b"]
    soft = given["c_soft"][..., None]
    parts = (soft[:rows], given["c_true"][:rows]), (soft[rows:], given["c_true"][rows:])
    # an AUC needs no sigmoid, and equal logits stay equal without it
    curve = niche_impurity_curve(lambda z: z[..., 0] @ weight + bias, *parts, step=step)
    return {
        "output/nis_per_beta": curve,
        "output/nis": torch.trapezoid(curve, dx=step),
        "output/ois": oracle_impurity(given["purity_matrix"], given["oracle_matrix"]),
    }


def head_with_concepts(weight: torch.Tensor, bias: torch.Tensor) -> CBM:
    """A bottleneck that hands its inputs to the head, and takes corrections as they are."""
    outputs, count = weight.shape
    names = [f"c{index}" for index in range(count)]
    model = CBM(backbone=Identity(in_channels=count), num_outputs=outputs, concept_names=names, bottleneck="logit")
    model.concept_layer.load_state_dict({"weight": torch.eye(count), "bias": torch.zeros(count)})
    model.head.load_state_dict({"0.weight": weight, "0.bias": bias})
    model.concept_absent.zero_()
    model.concept_present.fill_(1.0)
    return model.eval()


@adapter("concept_metrics", "sparsity_causal")
def sparsity_causal(case: Case) -> dict:
    arguments, given, param = case.arguments, case.input, case.param
    weight, count = param["weight"], given["concepts"].shape[1]
    groups = [part.tolist() for part in torch.arange(count).split(given["cardinalities"].tolist())]
    contributions = given["concepts"][:, :, None] * weight.T
    prediction = given["concepts"] @ weight.T

    def ncc(coverage: float, **options) -> torch.Tensor:
        metric = ContributingConcepts(coverage, **options)
        metric.update(contributions, prediction)
        return metric.compute()

    model = head_with_concepts(param["head.weight"], param["head.bias"])
    scores = []
    for group in arguments["intervention_groups"]:
        mask = torch.zeros(count, dtype=torch.bool)
        mask[group] = True
        corrected = model(given["c_pred"], Intervention(mask, given["c_true"])).prediction
        scores.append(macro_auc(corrected.sigmoid(), given["y_true"]))
    completeness = Completeness()
    completeness.update(given["y_whitebox"], given["y_blackbox"], given["y_true"])
    keys = ("0.weight", "0.bias", "2.weight", "2.bias")
    head = nn.Sequential(
        nn.Linear(*param["tcav_head.0.weight"].shape[::-1]),
        nn.Tanh(),
        nn.Linear(*param["tcav_head.2.weight"].shape[::-1]),
    )
    head.load_state_dict({key: param[f"tcav_head.{key}"] for key in keys})
    target = arguments["tcav_target"]
    tcav = TCAV(param["cavs"], target=target)
    tcav.update(head, given["embeddings"])
    grouped, predicted = arguments["ncc_grouped_coverage"], arguments["ncc_pred_coverage"]
    return {
        "output/nec": effective_concepts(weight),
        "output/nec_grouped": effective_groups(weight, groups),
        **{f"output/ncc_{coverage}": ncc(coverage) for coverage in arguments["ncc_coverages"]},
        f"output/ncc_{grouped}_grouped": ncc(grouped, groups=groups),
        f"output/ncc_{predicted}_pred": ncc(predicted, predicted_only=True),
        "output/cace": causal_effect(given["y_do0"], given["y_do1"]),
        "output/completeness": completeness.compute(),
        "output/intervention_scores": torch.stack(scores),
        "output/intervention_auc": torch.stack(scores).mean(),
        f"output/tcav_target{target}": tcav.compute(),
    }
