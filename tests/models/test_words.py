"""Whole words to numbers and one-line refusals."""

import pytest

from zoo.models.words import WordTokenizer

WORDS = ("a", "circle", "colour", "red", "striped")


def test_numbers_end_and_padding():
    tokenize = WordTokenizer(WORDS, context=6)
    rows = tokenize(["A red, striped circle!", "colour::red"])
    assert rows.tolist() == [[1, 4, 5, 2, 6, 0], [3, 4, 6, 0, 0, 0]]
    assert rows.max() == tokenize.size - 1
    assert tokenize([]).shape == (0, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a red circel", "unknown word 'circel' in 'a red circel': did you mean circle?"),
        ("a zebra", "unknown word 'zebra' in 'a zebra': the text tower knows 5 words, such as a, circle"),
        ("3 circles", "unknown word '3'"),
        ("", "no word"),
        (" :: ", "no word"),
        ("a a a a a a", "6 words: this text tower reads at most 5"),
    ],
)
def test_mistakes_are_one_line(text, message):
    with pytest.raises(ValueError, match="word") as error:
        WordTokenizer(WORDS, context=6)([text])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
