"""Lightning's checkpoints as a run keeps them: written beside and renamed, so that they survive a crash, and never
unpickled."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from zoo.errors import UserError
from zoo.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints written beside and renamed, and never unpickled."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as beside:
            torch.save(checkpoint, beside)

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return read_checkpoint(path)


def read_checkpoint(path: Any) -> dict[str, Any]:
    """What `AtomicCheckpointIO` wrote; nothing is ever unpickled.

    Raises:
        UserError: the file is damaged, or holds something else than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, UnpicklingError):
        raise UserError(
            f"{path}: no checkpoint, or a damaged one: remove it to begin its stage again, or start a new run"
        ) from None
