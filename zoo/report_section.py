"""What a report's page is made of: sections, and pictures of the run's test images."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.data.errors import DataError
from zoo.errors import UserError
from zoo.runs import Run


@dataclass
class Section:
    """A heading, a sentence that needs no training to understand, figures with captions, and pictures of the data.

    wide: each figure takes the page's width; otherwise two stand side by side.
    """

    title: str
    text: str
    figures: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    wide: bool = False

    def add_picture(self, run: Run, index: int, caption: str, *, wrong: bool = False) -> None:
        """Show test image `index`, where the run's data are still there and images."""
        source = picture(run, index)
        if source is not None:
            self.pictures.append({"source": source, "caption": caption, "wrong": wrong})


def picture(run: Run, index: int) -> str | None:
    """A test image of the run's data as a data: address; None where the data are gone or no images."""
    from PIL import Image

    datamodule = data_of_run(run)
    if datamodule is None or datamodule.facts.image_size == (0, 0):
        return None
    array = datamodule.raw("test", index)
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    image.thumbnail((256, 256))
    content = io.BytesIO()
    image.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


_opened: dict[str, Any] = {}


def data_of_run(run: Run) -> Any:
    """The run's data, opened once; None where they are gone."""
    from zoo.build import build_datamodule

    folder = str(run.folder)
    if folder not in _opened:
        try:
            _opened[folder] = build_datamodule(Run(Path(folder)).config())
        except (UserError, DataError):
            _opened[folder] = None
    return _opened[folder]
