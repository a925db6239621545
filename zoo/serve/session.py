"""What a person does on the page, without the page: pictures, what the model says of each, and corrections."""

import csv
import io
import shlex
import threading
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.explanation import Explanation, explain_features, features_of
from zoo.inference import transform_of
from zoo.models.contract import Intervention
from zoo.serve.uploads import data_url, read_upload
from zoo.trained import Trained, concept_index

CLASSES = 5
"""How many of the most probable classes the page shows."""
SMALL = 64
"""Longer side of a picture whose pixels the page keeps visible."""
_LOCK = threading.Lock()


@dataclass(eq=False)
class Picture:
    """A picture, what the model says of it as it is corrected now, and what the person says of it.

    shown: the source of an <img>. small: whether it has so few pixels that each should stay visible.
    corrections: concept -> the value in [0, 1] that the person gave it. label: the right class, where they named it.
    """

    name: str
    shown: str
    small: bool
    features: Tensor
    found: Explanation
    corrections: dict[str, float] = field(default_factory=dict)
    label: str | None = None

    @property
    def seen(self) -> dict[str, float]:
        """Concept -> how present the model takes it to be."""
        return self.found.answer["concepts"]

    @property
    def concepts(self) -> dict[str, float]:
        """Concept -> its value after the corrections."""
        return self.seen | self.corrections

    @property
    def answer(self) -> dict:
        """What the model says now, as `zoo.inference.in_words` puts it."""
        return self.found.corrected or self.found.answer

    @property
    def touched(self) -> bool:
        """Whether the person has said anything about it."""
        return bool(self.corrections) or self.label is not None

    @property
    def file(self) -> str:
        """Its name in a table of concepts: below the folder of its class, where that is known."""
        return self.name if self.label is None else f"{self.label}/{self.name}"


class Session:
    """The pictures of one person and their corrections."""

    def __init__(self, trained: Trained):
        self.trained, self.info = trained, trained.info
        self.transform = transform_of(trained.info)
        self.groups = {name: names for names in exclusive_groups(trained) for name in names}
        self.pictures: list[Picture] = []

    def add(self, name: str, content: bytes) -> Picture:
        """Look at an uploaded file; the folders that a browser may put before its name are left out.

        Raises:
            ImageError: it is no harmless picture.
        """
        name = name.replace("\\", "/").rpartition("/")[2] or "picture"
        raw = read_upload(name, content)
        features = features_of(self.trained.model, self.transform(raw))
        picture = Picture(name, data_url(raw), max(raw.shape[1:]) <= SMALL, features, self._explain(features, {}))
        self.pictures.append(picture)
        return picture

    def set(self, picture: Picture, concept: str, value: float) -> None:
        """Correct one concept to a value from 0 (absent) to 1 (present)."""
        concept_index(self.info, concept)
        picture.corrections[concept] = min(max(float(value), 0.0), 1.0)

    def choose(self, picture: Picture, concept: str, present: bool) -> None:
        """Say whether a concept is there; where only one of a group can be, its being there rules out the others."""
        for other in self.groups.get(concept, ()) if present else ():
            self.set(picture, other, 0.0)
        self.set(picture, concept, float(present))

    def explain(self, picture: Picture) -> None:
        """Bring what the model says of a picture up to date with its corrections."""
        picture.found = self._explain(picture.features, dict(picture.corrections))

    def corrected(self) -> list[Picture]:
        return [picture for picture in self.pictures if picture.touched]

    def namesakes(self) -> list[str]:
        """Names that several corrected pictures have, so that a table could not tell them apart."""
        counts = Counter(picture.file for picture in self.corrected())
        return [name for name, count in counts.items() if count > 1]

    def table(self) -> str:
        """The corrections as CSV, a row a picture, as `zoo.data.concept_tables` reads it: the file, and every concept
        as corrected, or as the model saw it where the person left it alone."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", *self.info.concept_names])
        rows = {picture.file: picture.concepts for picture in self.corrected()}
        for file, concepts in rows.items():
            writer.writerow([file, *(f"{concepts[name]:.4g}" for name in self.info.concept_names)])
        return text.getvalue()

    def command(self, table: str) -> str:
        """How to train on class folders of pictures with the corrections in the file `table`."""
        words = [f"model={self.info.name}", "data=folder", f"data.root={self._root()}", f"data.concepts={table}"]
        words += self._backbone(words)
        words.append(f"data.image_size={max(self.info.preprocessing['image_size'])}")
        words += ["data.channels=1"] if len(self.info.preprocessing["mean"]) == 1 else []
        return shlex.join(["python", "-m", "zoo", "train", *words])

    def _backbone(self, words: list[str]) -> list[str]:
        """The model's backbone, where `words` alone would take another."""
        from zoo.config import compose_config

        used = self.trained.run.config().get("backbone_name") if self.trained.run else None
        usual = compose_config([*words[:2], "data.root=FOLDER"]).get("backbone_name")
        return [f"backbone={used}"] if used and used != usual else []

    def _root(self) -> str:
        """The folder that the model was trained on, where it was one."""
        config = self.trained.run.config() if self.trained.run else {}
        return config["data"]["root"] if config.get("data_name") == "folder" else "FOLDER"

    def _explain(self, features: Tensor, corrections: dict[str, float]) -> Explanation:
        names = self.info.concept_names
        intervene = None
        if corrections:
            mask = torch.tensor([name in corrections for name in names])
            intervene = Intervention(mask, torch.tensor([corrections.get(name, 0.0) for name in names]))
        with _LOCK:
            return explain_features(self.trained, features, intervene, classes=CLASSES)


def exclusive_groups(trained: Trained) -> list[list[str]]:
    """The names of the concepts in each group of several, of which one is present."""
    names = trained.info.concept_names
    groups = [[names[i] for i in members] for _, members in trained.info.concept_groups if max(members) < len(names)]
    return [group for group in groups if len(group) > 1]
