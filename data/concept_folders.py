"""Concepts shown by example images: ROOT/<concept>/positives/* and ROOT/<concept>/negatives/*.

The layout in which post-hoc concept bottleneck models (ICLR 2023, arXiv 2205.15480) keep the images of BRODEN.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from zoo.data.concept_tables import shorten
from zoo.data.errors import DataError, ImageError
from zoo.data.transforms import SUFFIXES, load_image

SIDES = ("positives", "negatives")
FEWEST = 2
"""Images of a side: one learns the concept and another one judges it."""


@dataclass(frozen=True)
class ConceptFolder:
    """A concept and its images, sorted."""

    name: str
    positives: tuple[Path, ...]
    negatives: tuple[Path, ...]


def list_concepts(root: str | Path) -> list[ConceptFolder]:
    """The concepts of a folder, sorted by name, without reading an image.

    Raises:
        DataError: a line for each folder that is missing or holds too few images.
    """
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir() and not path.name.startswith("."))
    if problems := shorten(line for folder in folders for line in _problems(folder)):
        raise DataError(*problems)
    return [ConceptFolder(folder.name, *(_images(folder / side) for side in SIDES)) for folder in folders]


def check_images(concepts: list[ConceptFolder]) -> list[str]:
    """Decode every image; a line for each that cannot be."""

    def problem(path: Path) -> str | None:
        try:
            load_image(path)
        except ImageError as error:
            return str(error).replace("give another file", "replace or remove it")
        return None

    paths = [path for concept in concepts for path in (*concept.positives, *concept.negatives)]
    with ThreadPoolExecutor() as pool:
        return shorten(line for line in pool.map(problem, paths) if line)


def _problems(folder: Path) -> Iterator[str]:
    for side in (folder / name for name in SIDES):
        if not side.is_dir():
            yield f"{side}: there is no such folder; every concept needs positives and negatives"
        elif (count := len(_images(side))) < FEWEST:
            holds = "1 image" if count else "no image"
            yield f"{side}: holds {holds}; give at least {FEWEST}, one to learn the concept and one to judge it"


def _images(side: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in side.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()))
