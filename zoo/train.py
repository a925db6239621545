"""One training from configuration to result: prepare, fit every stage, measure the best weights, write the run folder.

Everything that a later run needs to go on lies in the folder, so resuming is running again: a stage whose last
checkpoint is complete is skipped, the one in progress continues from its last epoch, and each step draws its
randomness from (seed, stage, step), which makes the outcome that of an uninterrupted run.
"""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from zoo.artifact import describe, find_weights, load_fitting, save_model, with_weights_found
from zoo.build import build_datamodule, build_model, plain_arguments
from zoo.checkpoint_io import read_checkpoint
from zoo.data.module import ZooDataModule
from zoo.evaluate import evaluate, save_predictions
from zoo.files import write_json
from zoo.logs import logging_to
from zoo.metrics_file import MetricsFile, read_rows
from zoo.models.contract import Stage, ZooModel
from zoo.preflight import preflight
from zoo.report import write_report
from zoo.runs import Run, create_run, record_configuration
from zoo.tasks.supervised import SupervisedTask
from zoo.trainer import build_trainer

log = logging.getLogger("zoo")
RUN_VARIABLE = "ZOO_RUN"
"""Tells the processes that Lightning starts for further devices which folder the first one made."""


@dataclass
class Session:
    """A training's objects."""

    config: dict[str, Any]
    run: Run
    datamodule: ZooDataModule
    model: ZooModel


def train(config: dict[str, Any], overrides: list[str], *, resume: Run | None = None) -> dict[str, Any] | None:
    """Train as `config` says and return what result.json holds (None in a further process of a distributed run).

    Raises:
        UserError: before anything slow starts, with every mistake found.
    """
    if further := _run_of_the_first_process():
        config = further.config()
    # `latest` would be this run once its folder exists
    config = with_weights_found(config)
    preflight(config, build_datamodule(config))
    if config.get("init_from"):
        config = config | {"init_from": str(find_weights(config["init_from"]).resolve())}
    run = _folder(config, overrides, resume)
    with logging_to(run.log):
        try:
            return _train(config, run)
        except KeyboardInterrupt:
            log.info(f"interrupted; go on with: python -m zoo train resume={run}")
            raise
        except Exception as error:
            logging.getLogger("zoo.file").exception("training failed")
            error.add_note(f"log: {run.log}")
            raise


def _train(config: dict[str, Any], run: Run) -> dict[str, Any] | None:
    begin = time.perf_counter()
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    datamodule = build_datamodule(config)
    model = build_model(config, datamodule)
    session = Session(config, run, datamodule, model)
    datamodule.setup("fit")
    if config.get("init_from"):
        rest = load_fitting(model, config["init_from"])
        log.info(f"started from {config['init_from']}" + (f"; new: {', '.join(rest[:8])}" if rest else ""))
    use_feature_cache(session)
    session.datamodule.setup("fit")
    model.prepare(session.datamodule)
    fit(session)
    if int(os.environ.get("LOCAL_RANK", 0)):
        return None
    return finish(session, time.perf_counter() - begin)


def _folder(config: dict[str, Any], overrides: list[str], resume: Run | None) -> Run:
    if resume is not None:
        return resume
    if further := _run_of_the_first_process():
        return further
    name = f"{config['model_name']}-{config['data_name']}"
    run = create_run(config["output_dir"], config["task_name"], name)
    record_configuration(run, config, overrides)
    os.environ[RUN_VARIABLE] = str(run.folder.resolve())
    return run


def _run_of_the_first_process() -> Run | None:
    """Where this is a further process of a distributed training."""
    further = RUN_VARIABLE in os.environ and "LOCAL_RANK" in os.environ
    return Run(Path(os.environ[RUN_VARIABLE])) if further else None


def use_feature_cache(session: Session) -> None:
    """Where the backbone is frozen, let it see each image once; results are the same with and without."""
    backbone = getattr(session.model, "backbone", None)
    if session.config["cache"] == "off" or session.datamodule.augment or not getattr(backbone, "frozen", False):
        return
    from zoo.data.feature_cache import cache_features

    assert backbone is not None
    wanted = session.config["trainer"].get("accelerator", "auto")
    device = "cuda" if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"

    def encode(images: torch.Tensor) -> torch.Tensor:
        return backbone.to(device)(images.to(device)).cpu()

    session.datamodule = cache_features(session.datamodule, encode, f"{backbone.weights_key()} {device}")


def fit(session: Session) -> None:
    """Run the model's stages in order; each starts from the best weights of the one before."""
    stages = session.model.stages()
    shares = stage_epochs(stages, session.config["trainer"]["max_epochs"])
    for number, (stage, epochs) in enumerate(zip(stages, shares)):
        last = number == len(stages) - 1
        folder = session.run.checkpoints if last else session.run.checkpoints / stage.name
        fit_stage(session, stage, epochs, folder)
        session.model.finish_stage(stage, session.datamodule)


def stage_epochs(stages: list[Stage], total: int) -> list[int]:
    """Whole epochs for each stage, by its share of `total`, at least one each.

    >>> stage_epochs([Stage(share=1), Stage(share=3)], 20)
    [5, 15]
    """
    weight = sum(stage.share for stage in stages)
    return [max(1, round(total * stage.share / weight)) for stage in stages]


def fit_stage(session: Session, stage: Stage, epochs: int, folder: Path) -> None:
    """Fit one stage, from its last checkpoint if there is one, and leave its best weights in the model."""
    facts = session.datamodule.facts
    options = plain_arguments(session.config["task"])
    task = SupervisedTask(
        session.model,
        task=facts.task,
        num_outputs=facts.num_outputs,
        concept_names=facts.concept_names,
        stage=stage,
        seed=session.config["seed"],
        **options,
    )
    metrics = MetricsFile(session.run.metrics, stage.name, _rows_before(session.run.metrics, stage))
    trainer = build_trainer(session.config, session.run, task, metrics, folder=folder, epochs=epochs)
    last = folder / "last.ckpt"
    try:
        trainer.fit(
            task, datamodule=session.datamodule, ckpt_path=str(last) if last.is_file() else None, weights_only=True
        )
    except SystemExit as leaving:
        raise KeyboardInterrupt from leaving
    best = folder / "best.ckpt"
    if best.is_file():
        task.load_state_dict(read_checkpoint(best)["state_dict"])
    session.model.cpu()
    # what follows (evaluation, reading things off the weights) sees whole splits in this process, not a share of them
    session.datamodule.trainer = None


def _rows_before(path: Path, stage: Stage) -> list[dict[str, Any]]:
    """The rows of earlier stages: those of this one come back from its checkpoint."""
    rows = read_rows(path)
    first = next((i for i, row in enumerate(rows) if row["stage"] == stage.name), len(rows))
    return rows[:first]


def finish(session: Session, seconds: float) -> dict[str, Any]:
    """Measure the best weights and write model.safetensors, predictions.safetensors, result.json, report.html and
    MODEL_CARD.md."""
    model, data, run = session.model, session.datamodule, session.run
    model_name, data_name = session.config["model_name"], session.config["data_name"]
    data.setup("test")
    metrics, found = evaluate(model, data, "test")
    result = {
        "model": model_name,
        "data": data_name,
        "run": str(run),
        "seconds": round(seconds, 1),
        "metrics": metrics,
        "validation": evaluate(model, data, "val", concepts=False, cost=False)[0],
    }
    save_model(model, describe(model, model_name, data.facts, data.preprocessing, data_name), run.folder)
    save_predictions(found, run.folder)
    write_json(run.result_file, result)
    write_report(run)
    return result
