"""Learning rates over a stage: what the task promises of each schedule."""

import pytest
import pytorch_lightning as pl
import torch

from zoo.data.synthetic import SyntheticDataModule
from zoo.models.contract import Output, ZooModel
from zoo.tasks.supervised import SupervisedTask


class Linear(ZooModel):
    def __init__(self, moves: bool):
        super().__init__()
        self.layer, self.moves = torch.nn.Linear(4, 2), moves

    def forward(self, images, intervene=None):
        return Output(self.layer(images[:, :4]))

    def loss(self, output, batch):
        if not self.moves:
            return {"loss": 0 * output.prediction.sum()}
        return {"loss": torch.nn.functional.cross_entropy(output.prediction, batch["label"])}


class Rates(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, module):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def rates(folder, *, moves: bool, epochs: int, resume_at: int | None = None, **settings) -> list[float]:
    data, seen = SyntheticDataModule(samples=64), []
    for end in [resume_at, epochs] if resume_at else [epochs]:
        torch.manual_seed(0)
        task = SupervisedTask(Linear(moves), task="classification", num_outputs=2, lr=0.1, optimizer="sgd", **settings)
        noted = Rates()
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(max_epochs=end, accelerator="cpu", default_root_dir=folder, callbacks=[noted], **quiet)
        last = folder / "last.ckpt"
        trainer.fit(task, datamodule=data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
        trainer.save_checkpoint(last)
        seen += noted.seen
    return seen


def test_plateau_falls_to_a_tenth_once_the_loss_stands_still(tmp_path):
    seen = rates(tmp_path, moves=False, epochs=14, scheduler="plateau")
    assert seen == pytest.approx([0.1] * 12 + [0.01] * 2)
    assert rates(tmp_path / "b", moves=True, epochs=14, scheduler="plateau") == [0.1] * 14


def test_plateau_resumes_where_it_was(tmp_path):
    assert rates(tmp_path, moves=False, epochs=14, resume_at=8, scheduler="plateau")[-2:] == pytest.approx([0.01] * 2)


def test_no_warm_up_before_a_plateau():
    with pytest.raises(ValueError, match="warmup_epochs=1: there is no warm-up before a plateau"):
        SupervisedTask(Linear(True), task="classification", num_outputs=2, scheduler="plateau", warmup_epochs=1)
