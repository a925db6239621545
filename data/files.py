"""Image files in class folders, on disk or inside a plain tar file that is read in place."""

import hashlib
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from zoo.data.errors import DataError, ImageError
from zoo.data.source import Source
from zoo.data.transforms import SUFFIXES, decode_image


@dataclass(frozen=True)
class Entry:
    """One image: `<class>/<...>` inside its folder or tar, and the bytes of a file that hold it."""

    inner: str
    path: Path
    offset: int
    size: int

    @property
    def label(self) -> str:
        return self.inner.split("/", 1)[0]


@dataclass(frozen=True)
class Listing:
    """The classes and images of one folder or tar, both sorted."""

    path: Path
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    stamp: str


def list_images(path: Path) -> Listing:
    """List `<class>/**/*.jpg` (and the other image types) below a folder or inside a tar, without reading an image.

    Raises:
        DataError: the folder cannot be read, or the tar is damaged or compressed.
    """
    if path.is_file():
        return _list_tar(path)
    try:
        return _list_folder(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be listed ({error.strerror}: {error.filename}); check its permissions"
        ) from None


def _list_folder(root: Path) -> Listing:
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    entries, stamps = [], []
    for label in classes:
        for folder, below, files in os.walk(root / label):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in files:
                file = Path(folder, name)
                if _is_image(name):
                    status = file.stat()
                    inner = file.relative_to(root).as_posix()
                    entries.append(Entry(inner, file, 0, status.st_size))
                    stamps.append(f"{inner} {_stamp(status)}")
    return Listing(
        root, tuple(classes), tuple(sorted(entries, key=lambda entry: entry.inner)), "\n".join(sorted(stamps))
    )


def _list_tar(path: Path) -> Listing:
    """A single folder around the class folders is looked through."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = archive.getmembers()
    except (tarfile.TarError, OSError) as error:
        if path.suffix != ".tar":
            raise DataError(f"{path}: is a file; give a folder with a folder of images for each class") from None
        raise DataError(f"{path}: cannot be read as a plain tar file ({error}); make one with tar -cf") from None
    located = [(member, PurePosixPath(member.name).parts) for member in members]
    images = [(member, parts) for member, parts in located if member.isreg() and _is_image(parts[-1])]
    if len({parts[0] for _, parts in images}) == 1 and all(len(parts) > 2 for _, parts in images):
        located, images = ([(member, parts[1:]) for member, parts in pairs] for pairs in (located, images))
    images = [(member, parts) for member, parts in images if len(parts) > 1]
    folders = {parts[0] for member, parts in located if member.isdir() and len(parts) == 1}
    classes = {parts[0] for _, parts in images} | {name for name in folders if not name.startswith(".")}
    entries = [Entry("/".join(parts), path, member.offset_data, member.size) for member, parts in images]
    stamp = _stamp(path.stat())
    entries.sort(key=lambda entry: entry.inner)
    return Listing(path, tuple(sorted(classes)), tuple(entries), stamp)


def _stamp(status: os.stat_result) -> str:
    """Size and times; st_ctime changes even where a tool restores st_mtime."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _is_image(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES


class FileSource(Source):
    """The images of a listing; `classes` gives the labels' order. An error names the file."""

    def __init__(self, listing: Listing, *, classes: Sequence[str], concepts: np.ndarray | None = None):
        position = {name: index for index, name in enumerate(classes)}
        self.entries, self.stamp, self.concepts = listing.entries, listing.stamp, concepts
        self.labels = np.array([position[entry.label] for entry in self.entries], dtype=np.int64)
        self.names = [entry.inner for entry in self.entries]

    def keep(self, indices: Sequence[int]) -> None:
        """Forget all other images."""
        self.entries = tuple(self.entries[index] for index in indices)
        self.names = [entry.inner for entry in self.entries]
        self.labels = self.labels[list(indices)]
        self.concepts = None if self.concepts is None else self.concepts[list(indices)]

    def read(self, index: int) -> Any:
        entry = self.entries[index]
        where = str(entry.path) if entry.path.name == PurePosixPath(entry.inner).name else f"{entry.path}:{entry.inner}"
        try:
            with entry.path.open("rb") as file:
                file.seek(entry.offset)
                content = file.read(entry.size)
        except OSError as error:
            raise ImageError(f"{where}: cannot be read ({error.strerror}); restore it or remove it") from None
        return decode_image(content, name=where, advice="replace or remove it, or set data.on_error=skip")

    def fingerprint(self) -> str:
        names = "\n".join(self.names)
        return hashlib.blake2b(f"{self.stamp}\n\n{names}".encode(), digest_size=16).hexdigest()
