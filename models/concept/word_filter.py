"""Which words of a generated list are worth being concepts (label-free CBM, ICLR 2023, arXiv 2304.06129, section 3).

Dropped are words that are too long, those that all but name a class, and of two that say nearly the same the one that
is less like the others. The paper's similarity is a mean of two encoders, (mpnet + 3 * CLIP ViT-B/16) / 4; here it is
the cosine of the backbone's own text tower.
"""

from collections.abc import Sequence

from torch import Tensor


def sift(
    words: Sequence[str],
    vectors: Tensor,
    classes: Tensor | None,
    *,
    longest: int | None,
    class_cutoff: float | None,
    concept_cutoff: float | None,
) -> tuple[list[int], dict[str, list[str]]]:
    """Which of the words stay, by their position, and which go, by the reason.

    Args:
        words, vectors: K words and their directions (K, D), of length 1.
        classes: directions of the class names (M, D).
        longest: letters of a word, at most. class_cutoff, concept_cutoff: cosine with a class and with another word, at
            most. None of each is no limit.

    Raises:
        ValueError: none stays.
    """
    kept, removed = list(range(len(words))), {}

    def drop(gone: list[bool], why: str) -> list[int]:
        if names := [words[k] for k, out in zip(kept, gone) if out]:
            removed[why] = names
        if all(gone):
            raise ValueError(f"no concept is left ({why} removes {len(gone)}): change it, null is no limit")
        return [k for k, out in zip(kept, gone) if not out]

    if longest is not None:
        kept = drop([len(word) > longest for word in words], f"longest={longest}")
    if class_cutoff is not None and classes is not None:
        alike = (vectors[kept] @ classes.T > class_cutoff).any(1).tolist()
        kept = drop(alike, f"like a class, class_cutoff={class_cutoff:g}")
    if concept_cutoff is not None:
        alike = like_another(vectors[kept], concept_cutoff)
        kept = drop(alike, f"like another concept, concept_cutoff={concept_cutoff:g}")
    return kept, removed


def like_another(vectors: Tensor, cutoff: float) -> list[bool]:
    """Which of the words (K, D), of length 1, have to go so that no two are left with a cosine above `cutoff`: of each
    such pair the one with the smaller mean similarity to all, the later one where they are equal."""
    similarity = vectors @ vectors.T
    mean = similarity.mean(1)
    gone = [False] * len(vectors)
    for first, second in (similarity > cutoff).triu(1).nonzero().tolist():
        if not gone[first] and not gone[second]:
            gone[second if mean[first] >= mean[second] else first] = True
    return gone
