"""The rule by which one of several candidates is chosen, from their Dice alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from autoseg.evaluation.bootstrap import interval

RULE = (
    "A candidate's score is the mean over labels of its mean Dice over the cases that all candidates have out of fold; a label that is "
    "empty in reference and mask has no Dice in that case. Of the candidates with the fewest networks the one with the highest score is "
    "taken. Then, by ascending number of networks, the best of those with more takes its place only if the 95 % bootstrap interval over "
    "patients of the difference of their scores lies above 0, and there are at least 5 patients. Equal "
    "scores: fewer networks, then fewer parameters, then the name."
)

FEWEST_PATIENTS = 5
"""With fewer an interval says nothing, and more networks are not taken."""

EQUAL = 1e-9
"""Scores that lie no further apart are equal."""


@dataclass(frozen=True)
class Candidate:
    """What can be chosen: its name, how many networks see an image with one fold, and their trainable numbers."""

    name: str
    networks: int = 1
    parameters: int = 0

    @property
    def complexity(self) -> tuple[int, int, str]:
        """Smaller is simpler."""
        return self.networks, self.parameters, self.name


@dataclass(frozen=True)
class Difference:
    """How much higher one candidate scores than another, with its 95 % interval; nan where that is not known."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:+.4f}, no interval"
        return f"{self.value:+.4f}, 95 % interval {self.low:+.4f} to {self.high:+.4f}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: None for nan."""
        return {name: None if math.isnan(value) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Decision:
    """What the rule chose, and why.

    Attributes:
        chosen: a candidate's name.
        scores: candidate -> score, in the candidates' order.
        differences: candidate -> its score less that of the chosen one; not for the chosen one.
        reasons: a sentence a step.
    """

    chosen: str
    scores: Mapping[str, float]
    differences: Mapping[str, Difference]
    reasons: tuple[str, ...]


def decide(
    candidates: Sequence[Candidate], dice: Mapping[str, np.ndarray], weights: np.ndarray, *, patients: int, take: str | None = None
) -> Decision:
    """The candidate that `RULE` chooses.

    Args:
        dice: candidate -> float array (cases, labels), nan where a label is empty in reference and mask.
        weights: how often each bootstrap sample has each case, (samples, cases).
        patients: how many the cases are of.
        take: this candidate is asked for; it is taken whatever it scores.

    Raises:
        ValueError: there are no candidates, or none of the name `take`.
    """
    if not candidates:
        raise ValueError("there are no candidates")
    scores = {candidate.name: float(score(dice[candidate.name])) for candidate in candidates}
    if take is not None:
        if take not in scores:
            raise ValueError(f"there is no candidate {take!r}; there are: {', '.join(scores)}")
        chosen, reasons = take, [f"{take} was asked for."]
    else:
        chosen, reasons = _by_rule(candidates, scores, dice, weights, patients >= FEWEST_PATIENTS)
    differences = {name: difference(dice[name], dice[chosen], weights) for name in scores if name != chosen}
    return Decision(chosen, scores, differences, tuple(reasons))


def score(dice: np.ndarray, weights: np.ndarray | None = None) -> Any:
    """Mean over labels of the mean Dice over the cases that have one; labels without any are left out; nan where no label is left.

    Args:
        dice: (cases, labels).
        weights: (cases,), or (samples, cases) for one score a sample.
    """
    return _mean_of_labels(label_means(dice, weights))


def label_means(dice: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean Dice of each label over the cases that have one, nan where none has: (labels,), or (samples, labels); as `score`."""
    weights = np.ones(len(dice)) if weights is None else weights
    known = np.isfinite(dice)
    count = weights @ known.astype(float)
    return np.divide(weights @ np.where(known, dice, 0.0), count, out=np.full(np.shape(count), np.nan), where=count > 0)


def difference(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> Difference:
    """How much higher `first` scores than `second` on the same cases, with the interval over samples that draw the same cases for both."""
    value = float(_mean_of_labels(label_means(first) - label_means(second)))
    low, high = interval(_mean_of_labels(label_means(first, weights) - label_means(second, weights)))
    return Difference(value, low, high)


def _by_rule(
    candidates: Sequence[Candidate], scores: Mapping[str, float], dice: Mapping[str, np.ndarray], weights: np.ndarray, enough: bool
) -> tuple[str, list[str]]:
    """The chosen one and the reasons; `enough`: whether there are patients enough for more networks to be taken."""
    first, *more = (_best(candidates, scores, networks) for networks in sorted({candidate.networks for candidate in candidates}))
    chosen, reasons = first[0], [f"{first[0]} scores {scores[first[0]]:.4f}, {first[1]}."]
    for best, among in more:
        gain = difference(dice[best], dice[chosen], weights)
        taken = enough and gain.low > 0
        why = (
            "takes its place"
            if taken
            else f"does not take its place: {'the interval does not lie above 0' if enough else 'too few patients'}"
        )
        reasons.append(f"{best}, {among}, scores {scores[best]:.4f}: {gain} against {chosen}. It {why}.")
        chosen = best if taken else chosen
    return chosen, reasons


def _best(candidates: Sequence[Candidate], scores: Mapping[str, float], networks: int) -> tuple[str, str]:
    """The best of the candidates with so many networks, the simplest of equals; and what it is among them."""
    rivals = sorted((candidate for candidate in candidates if candidate.networks == networks), key=lambda rival: rival.complexity)
    best = reduce(lambda one, other: other if _value(scores[other.name]) > _value(scores[one.name]) + EQUAL else one, rivals)
    among = f"the best of {len(rivals)} candidates" if len(rivals) > 1 else "the only candidate"
    return best.name, f"{among} with {_networks(networks)}"


def _networks(count: int) -> str:
    return "one network" if count == 1 else f"{count} networks"


def _value(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _mean_of_labels(means: np.ndarray) -> Any:
    known = np.isfinite(means)
    count = known.sum(-1)
    return np.divide(np.where(known, means, 0.0).sum(-1), count, out=np.full(np.shape(count), np.nan), where=count > 0)
