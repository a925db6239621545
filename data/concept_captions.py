"""Sentences about items of any data, made from the names of their class and of their concepts.

What a contrastive model of pictures and words learns from where nobody wrote captions. An item of class `3` with the
concepts `thumb` and `index_finger` is called, as chance chooses:

    a photo of a 3
    index finger
    thumb, index finger; a photo of a 3
    a picture of a 3 with thumb and index finger
    a 2, but 3                                   what follows "but" holds
"""

import re
from collections.abc import Iterable, Sequence
from random import Random

import numpy as np

LEADS = ("", "", "a photo of a ", "a picture of a ", "an image of a ")
JOINTS = ("with", "and", "but")
MOST_CONCEPTS = 4
LONGEST = 24
"""Words of a caption of several names; a name alone may have more."""


def split_words(text: str) -> list[str]:
    """The words of a text in lower case: letters together, digits together, nothing else.

    >>> split_words("shape::Ankle_boot 2")
    ['shape', 'ankle', 'boot', '2']
    """
    return re.findall(r"[^\W\d_]+|\d+", text.lower())


def readable(name: str) -> str:
    """A name as a caption says it: `wing_colour::red` is "wing colour red"."""
    return " ".join(split_words(name))


def vocabulary(names: Iterable[str]) -> tuple[str, ...]:
    """Every word that captions of these class and concept names hold, sorted."""
    texts = (*names, *LEADS, *JOINTS)
    return tuple(sorted({word for text in texts for word in split_words(text)}))


class ConceptCaptions(Sequence[list[str]]):
    """`count` sentences about each of N items, drawn when asked for from the seed and the item's own name.

    labels: (N,) classes, called `class_names`. concepts: (N, K) in [0, 1], called `concept_names`, or None; more than
    0.5 is present. names: (N,) of the items.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        labels: np.ndarray,
        concepts: np.ndarray | None,
        class_names: Sequence[str],
        concept_names: Sequence[str],
        count: int,
        seed: int,
    ):
        self.names, self.labels, self.concepts = names, labels, concepts
        self.class_names = [readable(name) for name in class_names]
        self.concept_names = [readable(name) for name in concept_names]
        self.each, self.seed = count, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        rng = Random(f"{self.seed} {self.names[index]}")
        return [self._draw(int(self.labels[index]), index, rng) for _ in range(self.each)]

    def _draw(self, label: int, index: int, rng: Random) -> str:
        row = np.zeros(0) if self.concepts is None else self.concepts[index]
        present = [name for name, value in zip(self.concept_names, row) if value > 0.5 and name]
        absent = [name for name, value in zip(self.concept_names, row) if value <= 0.5 and name]
        lead, called, form = rng.choice(LEADS), self.class_names[label], rng.random()
        if not present:
            form *= 0.4
        if form < 0.05 and len(self.class_names) > 1:
            wrong = rng.choice([name for name in self.class_names if name != called] or [called])
            return f"{lead}{wrong}, but {called}"
        if form < 0.1 and present and absent:
            return f"{rng.choice(absent)}, but {rng.choice(present)}"
        if form < 0.35 or not present:
            return f"{lead}{called}"
        if form < 0.65:
            return rng.choice(present)
        some = self._some(present, rng, room=LONGEST - 1 - len(split_words(lead + called)))
        if form < 0.75:
            return ", ".join(some)
        return f"{', '.join(some)}; {lead}{called}" if form < 0.9 else f"{lead}{called} with {' and '.join(some)}"

    def _some(self, present: list[str], rng: Random, *, room: int) -> list[str]:
        """A few names that together fit into `room` words; at least one."""
        order = rng.sample(present, min(len(present), rng.randint(1, MOST_CONCEPTS)))
        kept = order[:1]
        for name in order[1:]:
            if len(" and ".join([*kept, name]).split()) <= room:
                kept.append(name)
        return kept
