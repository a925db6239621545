"""What can be found wrong before anything slow starts and before a run folder exists: shapes, settings of the task,
devices, loggers, and the weights to start from.
"""

import math
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from zoo.build import arguments_of_weights, build_model, construct, locate, plain_arguments
from zoo.data.errors import DataError
from zoo.errors import MissingDependency, UserError
from zoo.models.quiet import quiet

if TYPE_CHECKING:
    from zoo.data.contract import Facts
    from zoo.data.module import ZooDataModule
    from zoo.models.contract import ZooModel

OURS = {
    "callbacks": "is an object of Python, which a command line cannot give",
    "plugins": "is an object of Python, which a command line cannot give",
    "logger": "is chosen by logger=NAME",
}
"""Arguments of Lightning's Trainer that are not for the command line, with the reason."""


def preflight(config: dict[str, Any], datamodule: "ZooDataModule") -> None:
    """Check a configuration whose names and types are right.

    Raises:
        UserError: with every mistake found.
        MissingDependency: the logger's package is absent.
    """
    if instead := getattr(locate(config["model"]["_target_"]), "instead_of_training", ""):
        raise UserError(f"{config['model_name']} is not trained, {instead}")
    mistakes = _wrong_model(config, datamodule) + _wrong_trainer(config["trainer"], datamodule)
    if mistakes:
        raise UserError(*mistakes)
    package = logger_package(config)
    if package and find_spec(package) is None:
        raise MissingDependency(package, "tracking" if package == "tensorboard" else None, f"logger={package}")


def logger_package(config: dict[str, Any]) -> str | None:
    """The package of the configured tracker: wandb of WandbLogger."""
    target = (config.get("logger") or {}).get("_target_")
    return target.rpartition(".")[2].removesuffix("Logger").lower() if target else None


def _wrong_model(config: dict[str, Any], datamodule: "ZooDataModule") -> list[str]:
    """Build the model on the meta device, where nothing is computed, push two empty images through it, and hold the
    task's settings and the weights to start from against it."""
    import torch

    from zoo.artifact import fitting_tensors

    offline = dict(config)
    if isinstance(offline.get("backbone"), dict) and offline["backbone"].get("pretrained"):
        if mistakes := _wrong_weights(offline["backbone"]):
            return mistakes
        node = offline["backbone"]
        offline["backbone"] = node | arguments_of_weights(node) | {"pretrained": False}
    mistakes = []
    try:
        with torch.device("meta"), quiet():
            model = build_model(offline, datamodule).eval()
            mistakes += _wrong_shapes(model, datamodule.facts) + _untaught(model, config)
        mistakes += model.check(datamodule)
    except (UserError, DataError) as error:
        return str(error).splitlines()
    except (RuntimeError, LookupError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        return [f"model or backbone: cannot be built with these values ({reason}): change them"]
    facts = datamodule.facts
    supplied = {"model": model, "task": facts.task, "num_outputs": facts.num_outputs}
    for check in (
        lambda: construct(config["task"], supplied, "task"),
        lambda: config.get("init_from") and fitting_tensors(model, config["init_from"]),
    ):
        try:
            check()
        except UserError as error:
            mistakes += error.lines
    return mistakes


def _wrong_weights(node: dict[str, Any]) -> list[str]:
    """What a backbone knows of the weights it is asked for before it fetches them."""
    check = getattr(locate(node["_target_"]), "check_weights", None)
    try:
        if check is not None:
            check(**plain_arguments(node))
    except ValueError as error:
        return [f"backbone: {line}" for line in str(error).splitlines()]
    return []


def _untaught(model: "ZooModel", config: dict[str, Any]) -> list[str]:
    """Towers of images and words whose weights are random and stay so."""
    towers, node = getattr(model, "backbone", None), config.get("backbone") or {}
    if not hasattr(towers, "encode_text") or node.get("pretrained") or config.get("init_from"):
        return []
    trained = [prefix for stage in model.stages() for prefix in stage.trains]
    learns = any("backbone".startswith(prefix) or prefix.startswith("backbone") for prefix in trained)
    if learns and not getattr(towers, "frozen", False):
        return []
    return [
        "backbone: its weights are random and do not learn here: give backbone.pretrained, a run of model=clip or a tag"
    ]


def _wrong_shapes(model: "ZooModel", facts: "Facts") -> list[str]:
    import torch

    shape = facts.input_shape
    if (needed := 4 * math.prod(shape)) > (memory := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        room = f"{needed / 1e9:,.0f} GB, this machine has {memory / 1e9:,.0f}"
        return [f"data.image_size: one image of {shape} takes {room}"]
    try:
        prediction = model(torch.empty(2, *shape)).prediction
    except (RuntimeError, NotImplementedError, ValueError) as error:
        if "meta" in str(error).lower():
            return []
        return [f"shapes: {' '.join(str(error).split())[:300]} (image {shape}, change data.image_size or the backbone)"]
    if tuple(prediction.shape) != (2, facts.num_outputs):
        return [f"shapes: the model predicts {tuple(prediction.shape[1:])} for {facts.num_outputs} outputs"]
    return []


def _wrong_trainer(node: dict[str, Any], datamodule: "ZooDataModule") -> list[str]:
    """Settings that Lightning refuses on this machine, and a batch that the processes cannot share."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    mistakes = [
        f"trainer.{name}={'null' if node[name] is None else node[name]}: give at least 1"
        for name in ("max_epochs", "accumulate_grad_batches")
        if name in node and (node[name] or 0) < 1
    ]
    if node.get("limit_train_batches") == 0:
        mistakes.append("trainer.limit_train_batches=0: nothing would be learned; give at least 1, or leave it out")
    mistakes += [f"trainer.{name}: {why}; leave it out" for name, why in OURS.items() if node.get(name)]
    if node.get("enable_checkpointing") is False:
        mistakes.append("trainer.enable_checkpointing=false: a run keeps its best and last checkpoint; leave it out")
    if mistakes:
        return mistakes
    bare = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    try:
        with quiet():
            trainer = construct(node, bare, "trainer")
    except UserError as error:
        return mistakes + list(error.lines)
    except MisconfigurationException as error:
        given = f"trainer.accelerator={node.get('accelerator')}, trainer.devices={node.get('devices')}"
        return [*mistakes, f"trainer: {' '.join(str(error).split())} ({given})"]
    cores = os.cpu_count() or 1
    if node.get("accelerator") == "cpu" and trainer.num_devices > cores:
        mistakes.append(f"trainer.devices={trainer.num_devices}: this machine has {cores} processor cores")
    elif datamodule.batch_size % trainer.world_size:
        mistakes.append(
            f"data.batch_size={datamodule.batch_size}: {trainer.world_size} processes cannot share it; give a "
            f"multiple of {trainer.world_size}"
        )
    return mistakes
