"""The best that thresholds and components can do on a CT and PET dataset: what a network must beat to have learnt anything.

For each label on its own, and fitted for that label's Dice alone: voxels with at least so much uptake and CT within a window, of which
26-connected components the n-th to the m-th largest are kept. That labels may claim the same voxels makes it stronger, not weaker.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

logger = logging.getLogger(__name__)

LARGEST = 8
"""Components looked at, by size."""

PET_QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.4)
CT_LOWER_QUANTILES = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7)
CT_UPPER_QUANTILES = (0.6, 0.8, 0.95, 1.0)
"""Where in the label's own voxels the thresholds are tried; then half-way to the neighbours of the best."""


@dataclass(frozen=True)
class Example:
    """A case: CT, PET and mask, each (z, y, x)."""

    ct: np.ndarray
    pet: np.ndarray
    mask: np.ndarray


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
        first, last: which components by size, from 1, both included.
        dice: mean over the cases it was fitted on.
    """

    thresholds: Thresholds
    first: int
    last: int
    dice: float

    def __str__(self) -> str:
        t = self.thresholds
        which = f"component {self.first}" if self.first == self.last else f"components {self.first} to {self.last}"
        return f"PET >= {t.pet:.2f}, CT {t.ct_lower:.0f} to {t.ct_upper:.0f}, {which} by size"

    def apply(self, example: Example) -> np.ndarray:
        """The rule's bool mask of a case."""
        components, order = _components(example, self.thresholds)
        return np.isin(components, order[self.first - 1 : self.last])


def fit_rule(examples: Sequence[Example], label: int) -> Rule:
    """The rule with the highest mean Dice for a label over the cases: a grid of thresholds, twice refined, and every range of ranks.

    Raises:
        ValueError: no case holds the label.
    """
    inside = [example.mask == label for example in examples]
    ct = np.concatenate([e.ct[m] for e, m in zip(examples, inside, strict=True)])
    pet = np.concatenate([e.pet[m] for e, m in zip(examples, inside, strict=True)])
    if not ct.size:
        raise ValueError(f"no case holds the label {label}")
    grid = [np.quantile(v, q) for v, q in ((pet, PET_QUANTILES), (ct, CT_LOWER_QUANTILES), (ct, CT_UPPER_QUANTILES))]
    best = max((_best_ranks(examples, label, Thresholds(*map(float, values))) for values in product(*grid)), key=lambda rule: rule.dice)
    steps = [float(np.diff(values).max()) / 2 for values in grid]
    for _ in range(2):
        best = _refined(examples, label, best, steps)
        steps = [step / 2 for step in steps]
    return best


def _refined(examples: Sequence[Example], label: int, best: Rule, steps: Sequence[float]) -> Rule:
    for axis, step in enumerate(steps):
        for sign in (-1, 1):
            values = [best.thresholds.pet, best.thresholds.ct_lower, best.thresholds.ct_upper]
            values[axis] += sign * step
            best = max(best, _best_ranks(examples, label, Thresholds(*values)), key=lambda rule: rule.dice)
    return best


def _best_ranks(examples: Sequence[Example], label: int, thresholds: Thresholds) -> Rule:
    """The rule with these thresholds and the best range of ranks."""
    scores = np.mean([_dice_by_ranks(example, label, thresholds) for example in examples], axis=0)
    first, last = np.unravel_index(int(np.argmax(scores)), scores.shape)
    return Rule(thresholds, int(first) + 1, int(last) + 1, float(scores[first, last]))


def _dice_by_ranks(example: Example, label: int, thresholds: Thresholds) -> np.ndarray:
    """Dice of keeping components first to last by size, [first, last] from 0; 0 below the diagonal."""
    components, order = _components(example, thresholds)
    reference = example.mask == label
    count = int(components.max()) + 1
    sizes, shared = (np.bincount(values, minlength=count)[order] for values in (components.ravel(), components[reference]))
    sums = [np.concatenate([[0], np.cumsum(np.pad(values, (0, LARGEST - values.size)))]) for values in (sizes, shared)]
    kept, hit = (total[None, 1:] - total[:-1, None] for total in sums)
    return np.triu(2 * hit / np.maximum(kept + reference.sum(), 1))


def _components(example: Example, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """Numbered components, and the numbers of the largest ones, largest first."""
    from scipy.ndimage import label

    chosen = (example.pet >= thresholds.pet) & (example.ct >= thresholds.ct_lower) & (example.ct <= thresholds.ct_upper)
    components, _ = label(chosen, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())
    order = np.argsort(-sizes[1:], kind="stable")[:LARGEST] + 1
    return components, order
