"""The texts of a composed query: captions of reference images, and captions rewritten as an instruction asks.

Both are any callables (the first two steps of CIReVL, ICLR 2024, arXiv 2310.09291); the ones here read files, fill a
template, or wrap a language model that the user brings. As in the released code, an answer of a language model without
the line "Edited Description:" falls back to the instruction.
"""

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

MARK = "Edited Description:"


class Captioner(Protocol):
    def __call__(self, image: str) -> str:
        """A caption of the image of this name."""


class Rewriter(Protocol):
    def __call__(self, caption: str, instruction: str) -> str:
        """The caption of the wanted image: what `caption` says, changed as `instruction` asks."""


class FileCaptioner:
    """Captions from a JSON object {image name: caption}."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @cached_property
    def captions(self) -> dict[str, str]:
        return read_table(self.path)

    def __call__(self, image: str) -> str:
        if image not in self.captions:
            raise ValueError(f"{self.path.name} holds no caption of {image!r}: add it, or give a captioner")
        return self.captions[image]


class TemplateRewriter:
    """The rewriter without a language model: both sentences in one."""

    def __init__(self, template: str = "{caption}, but {instruction}"):
        self.template = template

    def __call__(self, caption: str, instruction: str) -> str:
        return self.template.format(caption=caption.strip().rstrip("."), instruction=instruction.strip().rstrip("."))


class FileRewriter:
    """Finished texts from a JSON object {caption: {instruction: text}}."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @cached_property
    def texts(self) -> dict[str, dict[str, str]]:
        return read_table(self.path)

    def __call__(self, caption: str, instruction: str) -> str:
        found = self.texts.get(caption, {}).get(instruction)
        if found is None:
            raise ValueError(f"{self.path.name} holds no text for caption {caption!r} and instruction {instruction!r}")
        return found


class LanguageModelRewriter:
    """Asks `complete`, any callable from a prompt to an answer, and reads the answer's "Edited Description:" line."""

    PROMPT = (
        "An image is described as: {caption}\n"
        "It shall be changed like this: {instruction}\n"
        f"Describe the changed image in one sentence. Answer with one line that starts with '{MARK}'."
    )

    def __init__(self, complete: Callable[[str], str], *, prompt: str = PROMPT):
        self.complete, self.prompt = complete, prompt

    def __call__(self, caption: str, instruction: str) -> str:
        return read_answer(self.complete(self.prompt.format(caption=caption, instruction=instruction)), instruction)


def read_answer(answer: str, instruction: str) -> str:
    """The text after the first "Edited Description:" that starts a line, or the instruction where there is none.

    >>> read_answer("Sure!\\nEdited Description: a red cup", "make it red")
    'a red cup'
    """
    lines = (line.strip() for line in answer.splitlines())
    found = next((line.removeprefix(MARK).strip() for line in lines if line.startswith(MARK)), "")
    return found or instruction


def read_table(path: str | Path) -> dict[str, Any]:
    table = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(table, Mapping):
        raise ValueError(f"{Path(path).name} holds a {type(table).__name__} where a JSON object is expected")
    return dict(table)
