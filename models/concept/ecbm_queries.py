"""Conditional probabilities of an energy-based concept model, as questions in words.

    p(c, y | x) = exp(-E(x, c, y)) / Z(x),   p(c, y) = mean over images of p(c, y | x)
    E = w_xy E_xy(x, y) + w_xc sum_k E_xc(x, k, c_k) + w_cy E_cy(c, y)

(propositions of arXiv 2401.14142; the released code counts predicted pairs instead). A `Joint` is a table over concept
configurations and classes; every question `p(wanted | given)` is a ratio of two sums over it. The table comes from
- `Joint.enumerate`: all 2^K configurations, exact, for small K;
- `Joint.sample`: configurations drawn from prod_k p(c_k | x), weighted by exp(-E_xy - E_cy), for any K;
- `Joint.empirical`: predicted pairs, the released estimator.
"""

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.models.concept.ecbm import ECBM

Weights = tuple[float, float, float]
MAX_CONCEPTS = 12
"""Enumeration's table has 2^K x M entries for each image."""


@dataclass(frozen=True)
class Term:
    """`concept` (an index) has this `value`, or, where `concept` is None, the class is `value`."""

    concept: int | None
    value: int


@dataclass(frozen=True)
class Query:
    """p(wanted | given), both conjunctions. text: as it was asked."""

    wanted: tuple[Term, ...]
    given: tuple[Term, ...] = ()
    text: str = field(default="", repr=False, compare=False)


def parse_query(text: str, *, concept_names: Sequence[str], class_names: Sequence[str]) -> Query:
    """Read `p(wing_bar | class=3, red=0)`: concepts are present unless `=0`, classes go by index or name.

    A name that holds one of `, | = "` is written in double quotes.

    Raises:
        ValueError: the form is another, or a name is unknown; the message holds the nearest names.

    >>> parse_query("p(red | class=b)", concept_names=["red"], class_names=["a", "b"])
    Query(wanted=(Term(concept=0, value=1),), given=(Term(concept=None, value=1),))
    """
    found = re.fullmatch(r"\s*p\s*\((.*)\)\s*", text, re.DOTALL)
    sides = _split(found[1], "|") if found else []
    if not 1 <= len(sides) <= 2:
        raise ValueError(f"query {text!r}: write it like p(concept | class=3, other=1)")
    wanted, *given = (
        tuple(_term(part, text, concept_names, class_names) for part in _split(side, ",")) for side in sides
    )
    return Query(wanted, given[0] if given else (), text)


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that stand outside double quotes."""
    return re.split(rf'{re.escape(separator)}(?=(?:[^"]*"[^"]*")*[^"]*$)', text)


def _term(part: str, text: str, concept_names: Sequence[str], class_names: Sequence[str]) -> Term:
    found = re.fullmatch(r'\s*(?:"([^"]+)"|([^"=\s][^"=]*?))\s*(?:=\s*(?:"([^"]+)"|([^"=]+?))\s*)?', part)
    if found is None:
        raise ValueError(f"query {text!r}: cannot read {part.strip()!r}, write concept, concept=0 or class=3")
    name, value = found[1] or found[2], found[3] or found[4]
    if name == "class" and found[1] is None:
        return Term(None, _class_index(value, text, class_names))
    if name not in concept_names:
        raise ValueError(f"query {text!r}: unknown concept {name!r}: {_nearest(name, [*concept_names, 'class'])}")
    if value not in (None, "0", "1"):
        raise ValueError(f"query {text!r}: {name} is 0 or 1, not {value!r}")
    return Term(list(concept_names).index(name), int(value or 1) if value != "0" else 0)


def _class_index(value: str | None, text: str, class_names: Sequence[str]) -> int:
    if value is None:
        raise ValueError(f"query {text!r}: say which class, as in class=0 or class={class_names[0]}")
    if value in class_names:
        return list(class_names).index(value)
    if value.isdecimal() and int(value) < len(class_names):
        return int(value)
    raise ValueError(f"query {text!r}: unknown class {value!r}: {_nearest(value, class_names)}")


def _nearest(word: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, names, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"choose one of {', '.join(names[:12])}" + (", ..." if len(names) > 12 else "")


@dataclass(frozen=True)
class Joint:
    """p(c, y) over S configurations (S, K) of the concepts and M classes: `probability` (S, M) sums to 1."""

    configurations: Tensor
    probability: Tensor

    def ask(self, query: Query) -> float:
        """p(wanted | given).

        Raises:
            ValueError: the condition has no probability in this table.
        """
        given = self._select(query.given)
        condition = float((self.probability * given).sum())
        if condition <= 0:
            raise ValueError(
                f"query {query.text!r}: the condition has probability 0: drop one of its terms or ask over more images"
            )
        return float((self.probability * given * self._select(query.wanted)).sum()) / condition

    def _select(self, terms: tuple[Term, ...]) -> Tensor:
        chosen = torch.ones_like(self.probability, dtype=torch.bool)
        for term in terms:
            if term.concept is None:
                chosen &= torch.arange(chosen.shape[1], device=chosen.device) == term.value
            else:
                chosen &= (self.configurations[:, term.concept] == term.value)[:, None]
        return chosen

    @classmethod
    def enumerate(cls, model: ECBM, features: Tensor, *, weights: Weights = (1.0, 1.0, 1.0)) -> "Joint":
        """Exact p(c, y) over the images with these features (N, D).

        Raises:
            ValueError: the model has more than 12 concepts; `sample` has no such limit.
        """
        configurations = all_configurations(len(model.concept_names)).to(features.device)
        tables = (conditional(model, chunk, weights=weights).sum(0) for chunk in features.split(16))
        return cls(configurations, sum(tables, torch.zeros((), dtype=torch.float64)) / len(features))

    @classmethod
    @torch.no_grad()
    def sample(
        cls, model: ECBM, features: Tensor, *, draws: int, weights: Weights = (1.0, 1.0, 1.0), seed: int = 0
    ) -> "Joint":
        """Self-normalised importance sampling of p(c, y): `draws` configurations for each image of features (N, D)."""
        generator = torch.Generator(features.device).manual_seed(seed)
        present = (-weights[1] * model.concept_energy(features)).softmax(-1)[..., 1]
        drawn = torch.bernoulli(present[:, None].expand(-1, draws, -1), generator=generator)
        energy = weights[0] * model.class_energy(features)[:, None]
        energy = energy + weights[2] * torch.stack([model.global_energy(configurations) for configurations in drawn])
        probability = (-energy.double()).flatten(1).softmax(-1).view_as(energy) / len(features)
        return cls(drawn.flatten(0, 1).long(), probability.flatten(0, 1))

    @classmethod
    def empirical(cls, concepts: Tensor, classes: Tensor, *, num_classes: int) -> "Joint":
        """Frequencies of predicted pairs: concepts (N, K), thresholded at 0.5, and classes (N,)."""
        pairs = torch.nn.functional.one_hot(classes, num_classes).double()
        return cls((concepts > 0.5).long(), pairs / len(pairs))


def all_configurations(concepts: int) -> Tensor:
    """The 2^K rows (2^K, K) in counting order, the last concept fastest."""
    if concepts > MAX_CONCEPTS:
        raise ValueError(
            f"{concepts} concepts are too many to enumerate (limit {MAX_CONCEPTS}): use estimator=sample or empirical"
        )
    return torch.tensor(list(itertools.product((0, 1), repeat=concepts)))


@torch.no_grad()
def conditional(model: ECBM, features: Tensor, *, weights: Weights = (1.0, 1.0, 1.0)) -> Tensor:
    """p(c, y | x) of features (N, D) over all configurations: (N, 2^K, M), float64, each image's sum is 1."""
    configurations = all_configurations(len(model.concept_names)).to(features.device)
    concepts = model.concept_energy(features).double()
    absent, present = concepts.unbind(-1)
    energy = absent.sum(-1, keepdim=True) + (present - absent) @ configurations.double().mT
    energy = weights[1] * energy[..., None] + weights[0] * model.class_energy(features).double()[:, None]
    energy = energy + weights[2] * model.global_energy(configurations).double()
    return (-energy).flatten(1).softmax(-1).view_as(energy)
