"""From a checked configuration to objects: data module, backbone, model.

A constructor argument named like a field of the data's `Facts` is filled from the data unless the configuration gives
it, and `backbone` is filled with the configured backbone. That is the whole of the wiring.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.data.contract import Facts, Preprocessing
from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from zoo.data.module import ZooDataModule
    from zoo.models.contract import ZooModel


WEIGHTS = {"pretrained": False, "checkpoint_path": None}
"""Arguments of a backbone that fetch weights, switched off: a recipe needs none, since the saved file holds them."""

FROM_DATA = frozenset(field.name for field in fields(Facts)) | {"words"}
"""Constructor arguments that the data fill unless the configuration gives them."""


def locate(target: str) -> Callable[..., Any]:
    """The class or function of a dotted name."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"_target_={target}: {error}") from None


def plain_arguments(node: dict[str, Any]) -> dict[str, Any]:
    """What a configuration node passes to its constructor."""
    return {key: value for key, value in node.items() if key not in ("_target_", "card")}


def construct(node: dict[str, Any], supplied: dict[str, Any], label: str) -> Any:
    """Call the node's target with its own values, and with those of `supplied` that it takes and the node leaves null.

    Raises:
        UserError: an argument is missing or the constructor refuses a value (its message, with the node's name).
    """
    target = locate(node["_target_"])
    arguments = _filled(node, supplied)
    parameters = inspect.signature(target).parameters
    required = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    missing = [name for name in required if name not in arguments]
    if missing:
        raise UserError(*(f"{label} needs {name}: give {label}.{name}=..." for name in missing))
    unknown = [name for name in arguments if name not in parameters]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise UserError(*(f"{label} ({target.__name__}) takes no {name}" for name in unknown))
    try:
        return target(**arguments)
    except (ValueError, TypeError) as error:
        lines = str(error).splitlines()
        raise UserError(*(line if line.startswith(f"{label}.") else f"{label}: {line}" for line in lines)) from error


def facts_as_arguments(datamodule: "ZooDataModule") -> dict[str, Any]:
    """The names under which constructors may ask for what the data know."""
    return vars(datamodule.facts) | {"words": datamodule.words}


def build_datamodule(config: dict[str, Any]) -> "ZooDataModule":
    """The data module of a configuration; every problem with the data that can be found cheaply is one line.

    Raises:
        UserError: with all of them.
    """
    datamodule = construct(config["data"], {"seed": config.get("seed", 0)}, "data")
    problems = datamodule.check()
    if problems:
        raise UserError(*(f"data: {line}" for line in problems))
    return datamodule


def build_model(config: dict[str, Any], datamodule: "ZooDataModule") -> "ZooModel":
    """The model of a configuration, its backbone included; the data module takes on the backbone's preprocessing.

    Returns:
        the model; `model.recipe` says what to call to build it again (see `rebuild`).
    """
    node, backbone = _backbone_node(config), None
    if node is not None:
        backbone = construct(node, facts_as_arguments(datamodule), "backbone")
        if backbone.preprocessing is not None:
            datamodule.use_preprocessing(Preprocessing.from_dict(backbone.preprocessing))
    return assemble(config["model"], node, backbone, facts_as_arguments(datamodule))


def _backbone_node(config: dict[str, Any]) -> dict[str, Any] | None:
    """The configured backbone, where the model takes one."""
    return config.get("backbone") if _takes(config["model"], "backbone") else None


def assemble(
    node: dict[str, Any], backbone_node: dict[str, Any] | None, backbone: Any, facts: dict[str, Any]
) -> "ZooModel":
    """Construct a model and note on it how to do so again."""
    supplied = facts if backbone is None else facts | {"backbone": backbone}
    model = construct(node, supplied, "model")
    model.recipe = {"target": node["_target_"], "arguments": _filled(node, facts), "backbone": None}
    if backbone_node is not None:
        unloaded = {name: off for name, off in WEIGHTS.items() if name in backbone_node}
        arguments = _filled(backbone_node, facts) | arguments_of_weights(backbone_node) | unloaded
        model.recipe["backbone"] = {"target": backbone_node["_target_"], "arguments": arguments}
    return model


def arguments_of_weights(node: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a backbone that the weights which its node names decide: the words of a text tower."""
    found = getattr(locate(node["_target_"]), "arguments_of_weights", None)
    return found(**plain_arguments(node)) if found else {}


def _filled(node: dict[str, Any], supplied: dict[str, Any]) -> dict[str, Any]:
    """A node's own arguments, and those supplied that its constructor takes and the node leaves null."""
    own = plain_arguments(node)
    return own | {name: supplied[name] for name in supplied if _takes(node, name) and own.get(name) is None}


def _takes(node: dict[str, Any], argument: str) -> bool:
    return argument in inspect.signature(locate(node["_target_"])).parameters


def rebuild(recipe: dict[str, Any]) -> "ZooModel":
    """A model from its recipe, without data and without downloading anything: its weights are loaded afterwards."""
    backbone_node = recipe.get("backbone")
    for described in (recipe, backbone_node):
        if described is not None:
            network_class(described["target"])
    node = {"_target_": recipe["target"], **recipe["arguments"]}
    if backbone_node is None:
        return assemble(node, None, None, {})
    plain = {"_target_": backbone_node["target"], **backbone_node["arguments"]}
    return assemble(node, plain, construct(plain, {}, "backbone"), {})


def network_class(target: str) -> "type[nn.Module]":
    """A saved file says what to call: nothing but a network's constructor is called for it."""
    from torch import nn

    found = locate(target)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"the file's description names {target}, which is no network: it was not called")
    return found


def create_model(name: str, *, data: str | None = None, backbone: str | None = None, **arguments: Any) -> "ZooModel":
    """Build a model of the catalogue, untrained, in evaluation mode.

    Args:
        name: as in `zoo list`.
        data: name of a data configuration at its defaults, such as "digits", whose facts fill `num_outputs`,
            `concept_names`, `image_size` and so on; without it those that the model needs are given in `arguments`.
        backbone: as in `backbone=` of the command line ("convnet", "timm:resnet18").
        arguments: the model's constructor arguments, or `num_outputs`, `concept_names`, `concept_groups`,
            `in_channels`, `image_size`, `task`.

    Raises:
        UserError: unknown names or arguments, or something the model needs that is not given.
    """
    from zoo.artifact import with_weights_found
    from zoo.config import compose_config
    from zoo.word_lists import read_word_lists

    words = [f"model={name}"] + ([f"data={data}"] if data else []) + ([f"backbone={backbone}"] if backbone else [])
    config = with_weights_found(compose_config(words))
    facts: dict[str, Any] = {"task": "classification", "in_channels": 3, "image_size": (224, 224)}
    if data is not None:
        facts = facts_as_arguments(build_datamodule(config))
    facts |= {key: arguments.pop(key) for key in list(arguments) if key in FROM_DATA}
    config["model"] |= arguments
    if wrong := read_word_lists(config):
        raise UserError(*wrong)
    node = _backbone_node(config)
    built = None if node is None else construct(node, facts, "backbone")
    return assemble(config["model"], node, built, facts).eval()
