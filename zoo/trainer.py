"""Lightning's Trainer as a run needs it: metrics.csv, the best and the last checkpoint, a bar on terminals only."""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar

from zoo.build import construct
from zoo.checkpoint_io import AtomicCheckpointIO
from zoo.metrics_file import MetricsFile
from zoo.runs import Run
from zoo.tasks.supervised import SupervisedTask


def build_trainer(
    config: dict[str, Any], run: Run, task: SupervisedTask, metrics: MetricsFile, *, folder: Path, epochs: int
) -> pl.Trainer:
    """The configured Trainer for one stage of `run`, whose checkpoints go to `folder`."""
    monitor, mode = task.monitor
    # two callbacks, because `save_last` of one leaves out the epochs that are not better
    always: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(folder, "best", monitor=monitor, mode=mode, **always)
    last = ModelCheckpoint(folder, "last", **always)
    terminal = sys.stdout.isatty()
    callbacks: list[pl.Callback] = [metrics, best, last] + ([RichProgressBar(leave=False)] if terminal else [])
    node = config["trainer"] | {"max_epochs": epochs}
    sharded = node.get("strategy") == "fsdp"
    supplied = {
        "callbacks": callbacks,
        "logger": _logger(config, run),
        "default_root_dir": str(run.folder),
        "enable_model_summary": False,
        "enable_progress_bar": terminal,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "plugins": None if sharded else [AtomicCheckpointIO()],
    }
    return construct(node, supplied, "trainer")


def _logger(config: dict[str, Any], run: Run) -> Any:
    """The configured tracker, or False: metrics.csv is written by a callback in any case."""
    node = config.get("logger") or {}
    if not node.get("_target_"):
        return False
    return construct(node, {"save_dir": str(run.folder)}, "logger")
