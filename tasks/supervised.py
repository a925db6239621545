"""Supervised learning of any zoo model: its own loss, one optimiser a stage, validation metrics by the data's task."""

import math
from collections.abc import Sequence
from typing import Any, Literal
from zlib import crc32

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MultilabelAccuracy
from torchmetrics.regression import MeanSquaredError

from zoo.models.contract import Batch, Output, Stage, ZooModel


class SupervisedTask(pl.LightningModule):
    """Optimises one stage of a model.

    Args:
        model: what learns.
        task: "classification" (labels are class indices) or "regression" (labels are values).
        num_outputs: classes or target columns.
        concept_names: of the data's concept labels. Concepts are measured where the model names the same ones.
        stage: which parameters learn by which loss.
        seed: every step draws its noise from (seed, step, rank), so that a resumed run repeats an uninterrupted one.
        lr: at the start of the cosine, after `warmup_epochs` of linear warm-up.
        scheduler: "cosine" to zero, "plateau" (a tenth after 10 epochs in which the training loss did not fall, as
            released concept models are trained) or "none".

    Raises:
        FloatingPointError: the loss is not finite; the message names epoch, step and terms.
    """

    def __init__(
        self,
        model: ZooModel,
        *,
        task: Literal["classification", "regression"],
        num_outputs: int,
        concept_names: Sequence[str] = (),
        stage: Stage | None = None,
        seed: int = 0,
        optimizer: Literal["adamw", "adam", "sgd"] = "adamw",
        lr: float = 3e-3,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        scheduler: Literal["cosine", "plateau", "none"] = "cosine",
        warmup_epochs: int = 0,
    ):
        super().__init__()
        for name, value in {"lr": lr, "weight_decay": weight_decay, "warmup_epochs": warmup_epochs}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value}: give {'at least 0' if value < 0 else 'a finite number'}")
        if scheduler == "plateau" and warmup_epochs:
            raise ValueError(f"warmup_epochs={warmup_epochs}: there is no warm-up before a plateau: leave it out")
        self.model = model
        self.stage = stage or Stage()
        self.seed = seed
        self.optimizer, self.lr = optimizer, lr * self.stage.lr_scale
        self.weight_decay, self.momentum = weight_decay, momentum
        self.scheduler, self.warmup_epochs = scheduler, warmup_epochs
        metrics: dict[str, Metric] = (
            {"acc": MulticlassAccuracy(num_outputs, average="micro")}
            if task == "classification"
            else {"mse": MeanSquaredError(num_outputs=1)}
        )
        if model.concept_names and tuple(model.concept_names) == tuple(concept_names):
            metrics["concept_acc"] = MultilabelAccuracy(len(model.concept_names), average="macro")
        self.val_metrics = nn.ModuleDict(metrics)
        select_stage(model, self.stage)

    @property
    def monitor(self) -> tuple[str, Literal["min", "max"]]:
        """The validation metric that chooses the best epoch. Stages with a loss of their own are chosen by it."""
        if self.stage.loss != "loss":
            return "val/loss", "min"
        return ("val/acc", "max") if "acc" in self.val_metrics else ("val/mse", "min")

    def on_train_epoch_start(self) -> None:
        select_stage(self.model, self.stage)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        torch.manual_seed(crc32(f"{self.seed} {self.stage.name} {self.global_step} {self.global_rank}".encode()))
        terms = self._terms(self.model.forward_batch(batch), batch)
        loss = terms["loss"]
        if not torch.isfinite(loss):
            shown = ", ".join(f"{name} {float(value):.4g}" for name, value in terms.items())
            raise FloatingPointError(
                f"the loss is not finite, {self.stage.name} epoch {self.current_epoch}, step {index} ({shown}): "
                f"lower task.lr (now {self.lr / self.stage.lr_scale:g}) or set trainer.gradient_clip_val=1"
            )
        logged = {f"train/{name}": value.detach() for name, value in terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch["index"]), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        output = self.model.forward_batch(batch)
        size = len(batch["index"])
        terms = self._terms(output, batch) | self.model.diagnostics(output, batch)
        self.log_dict({f"val/{k}": v.float().mean() for k, v in terms.items()}, batch_size=size, sync_dist=True)
        for name, metric in self.val_metrics.items():
            assert isinstance(metric, Metric)
            if name in terms:
                continue
            if name == "concept_acc":
                assert output.concepts is not None
                metric.update(output.concepts, (batch["concepts"] > 0.5).long())
            else:
                metric.update(output.prediction.float(), batch["label"])
            self.log(f"val/{name}", metric, batch_size=size)

    def _terms(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return getattr(self.model, self.stage.loss)(output, batch)

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        else:
            kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
            optimizer = kind(parameters, self.lr, weight_decay=self.weight_decay)
        if self.scheduler == "plateau":
            falling = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "monitor": "train/loss"}}
        if self.scheduler == "none" and not self.warmup_epochs:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def _lr_factor(self, epoch: int) -> float:
        """Linear warm-up, then half a cosine to zero at the end of the stage."""
        if epoch < self.warmup_epochs:
            return (epoch + 1) / (self.warmup_epochs + 1)
        if self.scheduler == "none":
            return 1.0
        total = max(self.trainer.max_epochs or 1, 1)
        progress = (epoch - self.warmup_epochs) / max(total - self.warmup_epochs, 1)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def select_stage(model: ZooModel, stage: Stage) -> None:
    """Let the stage's parameters learn and freeze the others, those of modules marked `frozen` (a backbone) in every
    stage; a module none of whose parameters learn goes to evaluation mode, so that its BatchNorm statistics and dropout
    rest too."""
    frozen = {id(p) for module in model.modules() if getattr(module, "frozen", False) for p in module.parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(
            id(parameter) not in frozen and any(name.startswith(prefix) for prefix in stage.trains)
        )
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
