"""A trained plain concept bottleneck as one that can be repaired for a new domain (`zoo adapt`)."""

import copy
import inspect
from dataclasses import replace

from zoo.artifact import ModelInfo
from zoo.build import network_class, rebuild
from zoo.errors import UserError
from zoo.trained import Trained, data_of

ADVICE = "train model=tf_tti on these data"


def check_repairable(info: ModelInfo) -> None:
    """
    Raises:
        UserError: the model neither repairs itself nor is it a concept bottleneck of nothing but its concepts.
    """
    from zoo.models.concept.cbm import CBM

    network, arguments = network_class(info.recipe["target"]), info.recipe["arguments"]
    if hasattr(network, "adapt"):
        return
    if network is not CBM or info.task != "classification":
        raise UserError(f"{info.name} cannot be adapted without training: {ADVICE}")
    deep = arguments.get("head_hidden") and arguments.get("head_activation") != "Identity"
    if arguments.get("pool", "mean") != "mean" or arguments.get("extra_dims") or deep:
        raise UserError(f"a cbm with pool=max, extra_dims or head_hidden cannot be adapted without training: {ADVICE}")


def repairable(trained: Trained) -> Trained:
    """The run of a plain cbm as one of tf_tti, which knows no more than what the training images look like.

    Raises:
        UserError: its head is not linear, or the data of the training are not at hand.
    """
    from zoo.models.concept.cbm import CBM
    from zoo.models.concept.tf_tti import TFTTI, head_weights

    assert isinstance(trained.model, CBM)
    try:
        head_weights(trained.model, width=len(trained.info.concept_names))
    except ValueError as error:
        raise UserError(f"{error}: {ADVICE}") from None
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
