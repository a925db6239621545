"""A tokenizer of whole words, for text towers small enough that their vocabulary can be read."""

import difflib
import re
from collections.abc import Sequence

import torch
from torch import Tensor


class WordTokenizer:
    """Texts to rows of word numbers: 1 to V for the words in their order, V + 1 at the end, 0 beyond it.

    Case and everything that is no letter are ignored. The end has the largest number, where CLIP's text tower looks.

    words: the vocabulary, in lower case. context: numbers in a row, the end included.

    >>> tokenize = WordTokenizer(["a", "cross", "red"], context=5)
    >>> tokenize(["A red cross.", "colour::red"])
    Traceback (most recent call last):
    ValueError: unknown word 'colour' in 'colour::red': the text tower knows 3 words, such as a, cross, red
    >>> tokenize(["A red cross."]).tolist()
    [[1, 3, 2, 4, 0]]
    """

    def __init__(self, words: Sequence[str], *, context: int):
        self.words, self.context = tuple(words), context
        self._number = {word: number for number, word in enumerate(self.words, start=1)}

    @property
    def size(self) -> int:
        """The size of the vocabulary: the words, the end, and 0."""
        return len(self.words) + 2

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """K texts -> (K, context) int64.

        Raises:
            ValueError: a text without a word, too long, or with a word that is unknown (with the nearest known ones).
        """
        return torch.tensor([self._row(text) for text in texts], dtype=torch.int64).reshape(len(texts), self.context)

    def _row(self, text: str) -> list[int]:
        words = re.findall(r"[^\W\d_]+|\d+", text.lower())
        if not words:
            raise ValueError(f"the text {text!r} holds no word")
        if len(words) >= self.context:
            raise ValueError(f"{text[:60]!r} has {len(words)} words: this text tower reads at most {self.context - 1}")
        for word in words:
            if word not in self._number:
                raise ValueError(f"unknown word {word!r} in {text!r}: {self._advice(word)}")
        row = [*(self._number[word] for word in words), self.size - 1]
        return row + [0] * (self.context - len(row))

    def _advice(self, word: str) -> str:
        near = difflib.get_close_matches(word, self.words, n=3, cutoff=0.6)
        if near:
            return f"did you mean {' or '.join(near)}?"
        shown = ", ".join(self.words[:8]) + (", ..." if len(self.words) > 8 else "")
        return f"the text tower knows {len(self.words)} words, such as {shown}"
