"""A trained plain concept bottleneck as one that can be repaired for a new domain (`zoo adapt`)."""

import copy
import inspect
from dataclasses import replace

from zoo.build import rebuild
from zoo.errors import UserError
from zoo.trained import Trained, data_of


def check_repairable(trained: Trained) -> None:
    """
    Raises:
        UserError: the model is no concept bottleneck whose head is linear in the concepts alone.
    """
    from zoo.models.concept.cbm import CBM
    from zoo.models.concept.tf_tti import head_weights

    model, advice = trained.model, "train model=tf_tti on these data"
    if type(model) is not CBM or model.task != "classification":
        raise UserError(f"{trained.info.name} cannot be adapted without training: {advice}")
    if model.pool != "mean" or len(model.extra_layer):
        raise UserError(f"a cbm with pool=max or extra_dims cannot be adapted without training: {advice}")
    try:
        head_weights(model, width=len(model.concept_names))
    except ValueError as error:
        raise UserError(f"{error}: {advice}") from None


def repairable(trained: Trained) -> Trained:
    """The run of a plain cbm as one of tf_tti, which knows no more than what the training images look like.

    Raises:
        UserError: the data of the training are not at hand.
    """
    from zoo.models.concept.tf_tti import TFTTI

    datamodule = data_of(trained)
    datamodule.setup("fit")
    info = copy.deepcopy(trained.info)
    known = inspect.signature(TFTTI).parameters
    arguments = {name: value for name, value in info.recipe["arguments"].items() if name in known}
    info.name = "tf_tti"
    info.recipe |= {"target": f"{TFTTI.__module__}.{TFTTI.__qualname__}", "arguments": arguments}
    model = rebuild(info.recipe)
    assert isinstance(model, TFTTI)
    model.load_state_dict(trained.model.state_dict(), strict=False)
    model.remember_source(datamodule)
    model.info = info
    return replace(trained, model=model.eval(), info=info)
