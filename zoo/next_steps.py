"""What to ask a trained model first: the verb that says most about one image, for the report, the card and `train`."""

from collections.abc import Mapping
from typing import Any


def to_ask(info: Mapping[str, Any], run: str = "RUN", image: str = "IMAGE") -> tuple[str, str]:
    """The words after `python -m zoo`, and what they give.

    info: the fields of `zoo.artifact.ModelInfo`.

    >>> to_ask({"task": "classification", "concept_names": ["wing"], "preprocessing": {"image_size": [64, 64]}})
    ('explain RUN IMAGE', 'which concepts spoke for an answer')
    >>> to_ask({"task": "classification", "concept_names": [], "preprocessing": {"image_size": [64, 64]}})
    ('explain RUN IMAGE', 'where in an image the answer was read')
    >>> to_ask({"task": "regression", "concept_names": [], "preprocessing": {"image_size": [64, 64]}})
    ('predict RUN IMAGE', 'the answer to an image')
    >>> to_ask({"task": "regression", "concept_names": ["wet"], "preprocessing": {"image_size": [0, 0]}})
    ('eval RUN', 'its figures, also on other rows')
    """
    if tuple((info.get("preprocessing") or {}).get("image_size", ())) == (0, 0):
        return f"eval {run}", "its figures, also on other rows"
    if info.get("concept_names"):
        return f"explain {run} {image}", "which concepts spoke for an answer"
    if info.get("task") == "classification":
        return f"explain {run} {image}", "where in an image the answer was read"
    return f"predict {run} {image}", "the answer to an image"
