"""Sentences about scenes that say more or less: what a contrastive model of pictures and words learns from.

A caption mentions some of the attributes, in one of these forms:

    a photo of a small red cross on the left, against snow
    red cross small
    colour red, shape cross, size small
    a blue cross on the left, but red           what follows "but" holds
"""

from collections.abc import Sequence
from random import Random

from zoo.data.scenes import ATTRIBUTES

LEADS = ("", "", "a photo of ", "a picture of ", "an image of ")
NOUNS = ("shape", "object")
WORDS = tuple(
    sorted(
        {"a", "an", "of", "on", "the", "against", "but", "photo", "picture", "image", *NOUNS, *ATTRIBUTES}
        | {value for values in ATTRIBUTES.values() for value in values}
    )
)
"""Every word that a caption can hold."""


def draw_captions(said: dict[str, str], count: int, rng: Random, *, unseen: Sequence[dict[str, str]] = ()) -> list[str]:
    """So many true captions of a scene, each of a form and with attributes that chance chooses.

    said: all attributes and their values. unseen: combinations of values that no caption may mention, not even
    to deny them.
    """
    return [_draw(said, rng, unseen) for _ in range(count)]


def _draw(true: dict[str, str], rng: Random, unseen: Sequence[dict[str, str]]) -> str:
    names = rng.sample(list(true), min(rng.randint(1, len(true)) for _ in range(2)))
    if "shape" not in names and rng.random() < 0.5:
        # the hardest to see, and what people name first
        names[rng.randrange(len(names))] = "shape"
    said = {name: true[name] for name in names}
    form = rng.random()
    if form < 0.2:
        return " ".join(said.values())
    if form < 0.4:
        return ", ".join(f"{name} {value}" for name, value in said.items())
    lead, noun = rng.choice(LEADS), rng.choice(NOUNS)
    if form < 0.55:
        return lead + _corrected(said, rng, noun, unseen)
    return lead + phrase(said, noun)


def phrase(said: dict[str, str], noun: str = "shape") -> str:
    """The mentioned attributes and their values as a sentence like `scenes.describe`.

    >>> phrase({"size": "small", "background": "snow"})
    'a small shape, against snow'
    """
    words = ["a", *(said[name] for name in ("size", "fill", "colour") if name in said), said.get("shape", noun)]
    words += [f"on the {said['position']}"] if "position" in said else []
    return " ".join(words) + (f", against {said['background']}" if "background" in said else "")


def _corrected(said: dict[str, str], rng: Random, noun: str, unseen: Sequence[dict[str, str]]) -> str:
    """A phrase with one value wrong, and after "but" the right one."""
    name = rng.choice(list(said))
    wrong = said | {name: rng.choice([value for value in ATTRIBUTES[name] if value != said[name]])}
    if any(combination.items() <= wrong.items() for combination in unseen):
        return phrase(said, noun)
    return f"{phrase(wrong, noun)}, but {said[name]}"
