"""The weights that ship with the zoo: a `zoo.models.word_clip` of 0.3 million numbers and the words of `data=shapes`.

zoo/assets/shapes_clip.json says what it is (architecture, words, preprocessing) and how its weights were made;
shapes_clip.safetensors beside it holds them, as a run of model=clip that was rounded to half precision.
"""

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

NAME = "shapes_clip"
TAG = "shapes"


@cache
def facts() -> dict[str, Any]:
    """The description that ships beside the weights."""
    return json.loads(files("zoo").joinpath(f"assets/{NAME}.json").read_text(encoding="utf-8"))


def content() -> bytes:
    """The file of weights.

    Raises:
        ValueError: not the weights that were shipped.
    """
    path = files("zoo").joinpath(f"assets/{NAME}.safetensors")
    found = path.read_bytes()
    if hashlib.sha256(found).hexdigest() != facts()["sha256"]:
        raise ValueError(f"{path}: not the weights that were shipped (wrong sha256): install the zoo again")
    return found
