"""metrics.csv, a row an epoch, and the same as plain lines of progress."""

import csv
import io
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from zoo.files import write_text

log = logging.getLogger("zoo")


class MetricsFile(pl.Callback):
    """metrics.csv: one row an epoch, written whole and renamed. Its rows travel in the checkpoint: a resumed run
    goes on from the epoch it resumes at, without doubled or lost rows."""

    def __init__(self, path: Path, stage: str, earlier: list[dict[str, Any]]):
        self.path, self.stage, self.earlier = path, stage, earlier
        self.rows: list[dict[str, Any]] = []

    @property
    def state_key(self) -> str:
        return "MetricsFile"

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])

    @property
    def all_rows(self) -> list[dict[str, Any]]:
        return self.earlier + self.rows

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        epoch = trainer.current_epoch
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append({"stage": self.stage, "epoch": epoch, "step": trainer.global_step, "lr": rate} | values)
        if trainer.is_global_zero:
            self._write()
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name in _SHOWN)
            log.info(f"{self.stage}  epoch {epoch + 1}/{trainer.max_epochs}  {shown}")

    def _write(self) -> None:
        rows = self.all_rows
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())


_SHOWN = ("train/loss", "val/loss", "val/acc", "val/mse", "val/concept_acc")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv; numbers as numbers."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [{key: _number(value) for key, value in row.items() if value != ""} for row in csv.DictReader(file)]


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
