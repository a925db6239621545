"""Real handwritten digits with stroke concepts: 1,797 8 x 8 grey, from scikit-learn (UCI Optical Recognition).

The concepts say what the upper half and the lower half of a digit are made of, and whether a bar crosses its top; they
are the same for all images of a class (as in AwA), and each class has its own row:

    upper_loop        8 9      a closed ring                 lower_loop        6 8      a closed ring
    upper_open_left   2 3 7    a bow, its gap on the left    lower_open_left   3 5 9    a bow, its gap on the left
    upper_open_right  5 6      a bow, its gap on the right   lower_stem        1 4 7    one stroke down to the line
    upper_open_top    4        two arms, a gap between       lower_bar         2        a level bar on the line
    upper_stem        1        one upright stroke            lower_bowl        0        a bow, its gap above
    upper_arch        0        a bow, its gap below          top_bar           5 7      a level bar across the top
"""

import numpy as np

from zoo.data.contract import Facts, Preprocessing
from zoo.data.module import ZooDataModule
from zoo.data.source import ArraySource, Source

CONCEPTS: dict[str, dict[str, str]] = {
    "upper": {
        "upper_loop": "89",
        "upper_open_left": "237",
        "upper_open_right": "56",
        "upper_open_top": "4",
        "upper_stem": "1",
        "upper_arch": "0",
    },
    "lower": {
        "lower_loop": "68",
        "lower_open_left": "359",
        "lower_stem": "147",
        "lower_bar": "2",
        "lower_bowl": "0",
    },
    "top": {"top_bar": "57"},
}
"""Group -> concept -> the digits that have it. Exactly one concept of `upper` and one of `lower` is present."""


def concept_matrix() -> np.ndarray:
    """(10, 12) float32: row d holds the concepts of digit d."""
    columns = [digits for group in CONCEPTS.values() for digits in group.values()]
    return np.array([[str(digit) in digits for digits in columns] for digit in range(10)], dtype=np.float32)


class DigitsDataModule(ZooDataModule):
    """scikit-learn's digits; the test split is cut from them like the validation split."""

    @property
    def facts(self) -> Facts:
        names = tuple(name for group in CONCEPTS.values() for name in group)
        groups = tuple((group, tuple(names.index(name) for name in members)) for group, members in CONCEPTS.items())
        return self.class_facts(tuple("0123456789"), names, groups)

    @property
    def data_preprocessing(self) -> Preprocessing:
        return Preprocessing(image_size=(8, 8), mean=(0.305,), std=(0.376,))

    def sources(self) -> dict[str, Source]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        return {"train": ArraySource(images, digits.target, concepts=concept_matrix()[digits.target])}
