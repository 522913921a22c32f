"""Postprocessing found on out-of-fold masks: rules are kept only where they help on cases that they were not found on.

The levels are gone through in order: the largest component of all foreground together, then class by class a minimum size or the largest
component. At each level the best alternative is found on all cases but one part, and applied to that part; over all parts this gives a
Dice for every case of rules that did not see it. Only where that is higher than without, and no class is worse, is the level kept, with
the alternative that is best on all cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from autoseg.choosing.counts import Survey
from autoseg.choosing.decision import label_means, score
from autoseg.inference.postprocessing import LARGEST, MINIMUM, Rule

RULE = (
    "Only the largest component of all foreground together, then for each class a minimum size (steps 1, 2, 5, 10, ... mm3) or only the "
    "largest component: each is fitted on all parts of the cases but one (the folds; where there is one fold, five groups of patients) and "
    "judged on that part. It is kept only where the mean Dice of the judged parts rises and no class gets worse there, and then as fitted "
    "on all cases, if there it helps too."
)

HIGHER = 1e-9
"""A mean Dice that rises by less does not rise."""
PARTS = 5

Rules = tuple[Rule, ...]
DiceAfter = Callable[[Iterable[Rules]], Mapping[Rules, np.ndarray]]
"""Rules one after another -> Dice, (cases, classes)."""


@dataclass(frozen=True)
class Level:
    """What can be done at one place: alternatives, mildest first."""

    name: str
    alternatives: Rules


@dataclass(frozen=True)
class LevelResult:
    """What became of a level.

    Attributes:
        before, after: score of the judged parts without and with it.
        fitted: the alternative that is best on all cases; None where none helps there.
        kept: whether it is part of the rules.
    """

    name: str
    before: float
    after: float
    fitted: Rule | None
    kept: bool

    def __str__(self) -> str:
        found = str(self.fitted) if self.fitted else "nothing helps"
        return (
            f"{self.name}: {found}; judged on cases left out {self.before:.4f} -> {self.after:.4f}: {'kept' if self.kept else 'not kept'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"level": self.name, "before": self.before, "after": self.after, "kept": self.kept} | (
            {"fitted": self.fitted.to_dict()} if self.fitted else {}
        )


@dataclass(frozen=True)
class Found:
    """The rules that were kept.

    Attributes:
        rules: fitted on all cases.
        levels: all that were tried.
        dice: (cases, classes) without postprocessing, and `nested`: with rules that did not see the case.
    """

    rules: Rules
    levels: tuple[LevelResult, ...]
    dice: np.ndarray
    nested: np.ndarray


def levels_for(classes: Sequence[str], survey: Survey) -> list[Level]:
    """The levels of these classes, with thresholds from a voxel's volume up to half of what the largest components usually have."""
    levels = [Level("all foreground together", (Rule(LARGEST, tuple(classes)),))] if len(classes) > 1 else []
    for name in classes:
        largest = survey.largest_mm3[name]
        sizes = ladder(min(survey.voxel_mm3), median(largest) / 2) if largest else []
        levels.append(Level(name, (*(Rule(MINIMUM, (name,), size) for size in sizes), Rule(LARGEST, (name,)))))
    return levels


def ladder(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten above `low` and up to `high`."""
    found = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(max(high, low))) + 1):
        found += [round(step * 10.0**power, 9) for step in (1, 2, 5)]
    return [size for size in found if low < size <= high]


def parts_of(fold_of: Sequence[Any], patients: Sequence[str]) -> np.ndarray:
    """The part that each case belongs to, int (cases,): its fold; where there is one fold, one of five groups of patients.

    Args:
        fold_of, patients: one a case; a patient's cases lie in one fold.
    """
    folds = sorted(set(fold_of), key=str)
    if len(folds) > 1:
        return np.array([folds.index(fold) for fold in fold_of])
    order = sorted(set(patients))
    return np.array([order.index(patient) % PARTS for patient in patients])


def find_rules(levels: Sequence[Level], dice_after: DiceAfter, parts: np.ndarray) -> Found:
    """The rules that help on cases that they were not found on.

    Args:
        dice_after: gives the Dice of all cases after rules.
        parts: of each case; fewer than two parts give no rules.
    """
    present = sorted(set(parts.tolist()))
    outside: list[Rules] = [()] * len(present)
    everywhere: Rules = ()
    table = dict(dice_after([()]))
    results = []
    for level in levels if len(present) > 1 else ():
        prefixes = dict.fromkeys([*outside, everywhere])
        table |= dice_after([(*prefix, rule) for prefix in prefixes for rule in level.alternatives])
        fits = [_fit(table, prefix, level.alternatives, parts != part) for part, prefix in zip(present, outside, strict=True)]
        fitted = _fit(table, everywhere, level.alternatives, np.ones(len(parts), bool))
        extended = [prefix if rule is None else (*prefix, rule) for prefix, rule in zip(outside, fits, strict=True)]
        before, after = (_judged(table, rules, parts, present) for rules in (outside, extended))
        kept = fitted is not None and _helps(before, after)
        results.append(LevelResult(level.name, float(score(before)), float(score(after)), fitted, kept))
        if kept and fitted is not None:
            outside, everywhere = extended, (*everywhere, fitted)
    return Found(everywhere, tuple(results), table[()], _judged(table, outside, parts, present))


def _fit(table: Mapping[Rules, np.ndarray], prefix: Rules, alternatives: Rules, cases: np.ndarray) -> Rule | None:
    """The alternative with the highest score on these cases, the mildest of equals; None where none helps."""
    before = table[prefix][cases]
    best, best_score = None, float(score(before))
    for rule in alternatives:
        after = table[(*prefix, rule)][cases]
        if _helps(before, after) and float(score(after)) > best_score + HIGHER:
            best, best_score = rule, float(score(after))
    return best


def _judged(table: Mapping[Rules, np.ndarray], rules: Sequence[Rules], parts: np.ndarray, present: Sequence[int]) -> np.ndarray:
    """Dice of each case after the rules of its part."""
    judged = table[()].copy()
    for part, own in zip(present, rules, strict=True):
        judged[parts == part] = table[own][parts == part]
    return judged


def _helps(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the score rises and no class gets worse; a class whose Dice is not defined any more is no worse."""
    worse = label_means(after) < label_means(before) - HIGHER
    return bool(score(after) > score(before) + HIGHER and not worse.any())
