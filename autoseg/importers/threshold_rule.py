"""The best that thresholds and components can do on a CT and PET dataset: what a network must beat to have learnt anything.

For each label on its own, and fitted for that label's Dice alone: voxels with at least so much uptake and CT within a window; of their
26-connected components those of a range of volumes; of these the n-th to the m-th largest. That labels may claim the same voxels makes it
stronger, not weaker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

LARGEST = 8
"""Components kept at most, by size."""

PET_QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.4)
CT_LOWER_QUANTILES = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7)
CT_UPPER_QUANTILES = (0.6, 0.8, 0.95, 1.0)
"""Where in the label's own voxels the thresholds are tried; then half-way to the neighbours of the best."""

SMALLEST_ML = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
LARGEST_ML = (5.0, 10.0, 20.0, 40.0, 80.0, math.inf)
"""Volumes between which components count."""

_WINDOWS = tuple((low, high) for low, high in product(SMALLEST_ML, LARGEST_ML) if low < high)


@dataclass(frozen=True)
class Example:
    """A case: CT, PET and mask, each (z, y, x), and a voxel's volume in ml."""

    ct: np.ndarray
    pet: np.ndarray
    mask: np.ndarray
    voxel_ml: float = 0.001


@dataclass(frozen=True)
class Thresholds:
    """PET from, CT from and to."""

    pet: float
    ct_lower: float
    ct_upper: float


@dataclass(frozen=True)
class Rule:
    """A fitted rule.

    Attributes:
        thresholds: which voxels.
        first, last: which components by size, from 1, both included, counted among those of `smallest_ml` to `largest_ml`.
        dice: mean over the cases it was fitted on; cases without the label in which it finds nothing are left out.
    """

    thresholds: Thresholds
    first: int
    last: int
    dice: float
    smallest_ml: float = 0.0
    largest_ml: float = math.inf

    def __str__(self) -> str:
        t = self.thresholds
        which = f"component {self.first}" if self.first == self.last else f"components {self.first} to {self.last}"
        smallest = f", at least {self.smallest_ml:g} ml" if self.smallest_ml > 0 else ""
        largest = f", at most {self.largest_ml:g} ml" if self.largest_ml < math.inf else ""
        return f"PET >= {t.pet:.2f}, CT {t.ct_lower:.0f} to {t.ct_upper:.0f}{smallest}{largest}, {which} by size"

    def apply(self, example: Example) -> np.ndarray:
        """The rule's bool mask of a case."""
        components, order, sizes = _components(example.ct, example.pet, self.thresholds)
        volumes = sizes * example.voxel_ml
        order = order[(volumes >= self.smallest_ml) & (volumes <= self.largest_ml)]
        return np.isin(components, order[self.first - 1 : self.last])


def fit_rule(examples: Sequence[Example], label: int) -> Rule:
    """The rule with the highest mean Dice for a label over the cases: thresholds on a grid, twice refined, all ranges of ranks and volumes.

    Raises:
        ValueError: no case holds the label.
    """
    return fit_rules(examples, label, [range(len(examples))])[0]


def fit_rules(examples: Sequence[Example], label: int, trainings: Sequence[Sequence[int]]) -> list[Rule]:
    """The best rule for each of several sets of training cases, as `fit_rule`, with the work shared.

    Args:
        trainings: for each rule, the positions of the cases that it is fitted on.

    Raises:
        ValueError: no case of a set holds the label.
    """
    holds = np.array([bool((example.mask == label).any()) for example in examples])
    if any(not holds[list(training)].any() for training in trainings):
        raise ValueError(f"no case holds the label {label}")
    inside = [example.mask == label for example in examples]
    ct, pet = (np.concatenate([getattr(e, name)[m] for e, m in zip(examples, inside, strict=True)]) for name in ("ct", "pet"))
    grid = [np.quantile(v, q) for v, q in ((pet, PET_QUANTILES), (ct, CT_LOWER_QUANTILES), (ct, CT_UPPER_QUANTILES))]
    steps = [float(np.diff(values).max()) / 2 for values in grid]
    search = _Search([_cropped(example, float(grid[0][0]) - 2 * steps[0], label) for example in examples])
    candidates = [Thresholds(*map(float, values)) for values in product(*grid)]
    return [search.best(list(training), candidates, steps) for training in trainings]


@dataclass(frozen=True)
class _Case:
    """The part of a case that any threshold of interest can reach, and the label's voxels in all of it."""

    ct: np.ndarray
    pet: np.ndarray
    inside: np.ndarray
    reference: int
    voxel_ml: float


def _cropped(example: Example, lowest_pet: float, label: int) -> _Case:
    from autoseg.evaluation.overlap import bounding_box

    inside = example.mask == label
    box = bounding_box(example.pet >= lowest_pet) or (slice(0, 1),) * 3
    return _Case(example.ct[box], example.pet[box], inside[box], int(inside.sum()), example.voxel_ml)


class _Search:
    """Finds the best rule for some of the cases; what was worked out for one set of cases serves the others."""

    def __init__(self, cases: Sequence[_Case]):
        self.cases = cases
        self._scores: dict[Thresholds, np.ndarray] = {}

    def best(self, training: list[int], candidates: Sequence[Thresholds], steps: Sequence[float]) -> Rule:
        best = max((self._rule(training, candidate) for candidate in candidates), key=lambda rule: rule.dice)
        for _ in range(2):
            for (axis, step), sign in product(enumerate(steps), (-1, 1)):
                name = ("pet", "ct_lower", "ct_upper")[axis]
                moved = replace(best.thresholds, **{name: getattr(best.thresholds, name) + sign * step})
                best = max(best, self._rule(training, moved), key=lambda rule: rule.dice)
            steps = [step / 2 for step in steps]
        return best

    def _rule(self, training: list[int], thresholds: Thresholds) -> Rule:
        """The rule with these thresholds and the best ranks and volumes."""
        if thresholds not in self._scores:
            self._scores[thresholds] = np.stack([_scores(case, thresholds) for case in self.cases])
        scores = self._scores[thresholds][training]
        defined = ~np.isnan(scores)
        means = np.where(defined, scores, 0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
        window, first, last = np.unravel_index(int(np.argmax(means)), means.shape)
        return Rule(thresholds, int(first) + 1, int(last) + 1, float(means[window, first, last]), *_WINDOWS[window])


def _scores(case: _Case, thresholds: Thresholds) -> np.ndarray:
    """Dice of keeping components first to last by size, (volumes, first, last); nan where both masks are empty, 0 where last < first."""
    components, order, sizes = _components(case.ct, case.pet, thresholds)
    shared = np.bincount(components[case.inside], minlength=sizes.size + 1)[order]
    kept_up_to, hit_up_to = (np.concatenate([[0], np.cumsum(values)]) for values in (sizes, shared))
    volumes = sizes * case.voxel_ml
    start = np.array([np.sum(volumes > high) for _, high in _WINDOWS])
    stop = np.maximum(np.array([np.sum(volumes >= low) for low, _ in _WINDOWS]), start)
    ends = np.minimum(start[:, None] + np.arange(LARGEST + 1), stop[:, None])
    kept, hit = (total[ends][:, None, 1:] - total[ends][:, :-1, None] for total in (kept_up_to, hit_up_to))
    found = kept + case.reference
    dice = np.where(found > 0, 2 * hit / np.maximum(found, 1), np.nan)
    return np.where(np.tri(LARGEST, dtype=bool).T, dice, 0).astype(np.float32)


def _components(ct: np.ndarray, pet: np.ndarray, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbered components, their numbers from the largest on, and their voxels in that order."""
    from scipy.ndimage import label

    chosen = (pet >= thresholds.pet) & (ct >= thresholds.ct_lower) & (ct <= thresholds.ct_upper)
    components, _ = label(chosen, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())[1:]
    order = np.argsort(-sizes, kind="stable")
    return components, order + 1, sizes[order]
