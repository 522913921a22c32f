"""Dice of many masks of a case against its reference, and of what rules of postprocessing would leave of a mask. No other metric: these
are looked at by the hundred."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.errors import CasesFailed
from autoseg.evaluation.overlap import bounding_box, count_voxels
from autoseg.images import Image, check_same_grid, read_mask
from autoseg.inference.postprocessing import Components, Rule, apply_rule, find_components
from autoseg.workers import map_cases
from planners.labels import LabelScheme

Rules = tuple[Rule, ...]


@dataclass(frozen=True)
class Compared:
    """Candidates' Dice.

    Attributes:
        dice: candidate -> float (cases, classes), nan where reference and mask are empty.
        present: whether a reference shows a class, bool (cases, classes).
    """

    dice: Mapping[str, np.ndarray]
    present: np.ndarray


@dataclass(frozen=True)
class Survey:
    """What the sizes of a ladder of thresholds follow from.

    Attributes:
        voxel_mm3: the volume of a voxel of each case.
        largest_mm3: class -> the volume of the largest component in each case's mask that has some.
    """

    voxel_mm3: tuple[float, ...]
    largest_mm3: Mapping[str, tuple[float, ...]]


def dice_of_masks(
    references: Mapping[str, Path], masks: Mapping[str, Mapping[str, Path]], scheme: LabelScheme, *, tolerance: float, workers: int = 0
) -> Compared:
    """The Dice of every candidate, cases in the order of `references` and classes in that of the scheme.

    Args:
        references: case -> reference mask.
        masks: candidate -> case -> mask, for all these cases.
        tolerance: how far corners of grids may lie apart, in voxels.
        workers: processes, 0 for none.

    Raises:
        CasesFailed: a mask cannot be read, or is not on its reference's grid.
    """
    items = [(case, path, {name: of[case] for name, of in masks.items()}) for case, path in references.items()]
    rows = _mapped(partial(_case_dice, scheme=scheme, tolerance=tolerance), items, workers, "compare")
    table = {name: np.array([row[name] for row, _ in rows]).reshape(len(rows), -1) for name in masks}
    return Compared(table, np.array([present for _, present in rows]).reshape(len(rows), -1))


def dice_after_rules(
    references: Mapping[str, Path],
    masks: Mapping[str, Path],
    sequences: Iterable[Rules],
    scheme: LabelScheme,
    *,
    tolerance: float,
    workers: int = 0,
) -> dict[Rules, np.ndarray]:
    """Rules one after another -> Dice of what they leave of each mask, (cases, classes); arguments and errors as `dice_of_masks`."""
    wanted = list(dict.fromkeys(sequences))
    items = [(case, path, masks[case]) for case, path in references.items()]
    rows = _mapped(partial(_case_after_rules, sequences=wanted, scheme=scheme, tolerance=tolerance), items, workers, "rules")
    return {sequence: np.array([row[index] for row in rows]).reshape(len(rows), -1) for index, sequence in enumerate(wanted)}


def survey(masks: Mapping[str, Path], scheme: LabelScheme, *, workers: int = 0) -> Survey:
    """The sizes of the components in these masks."""
    rows = _mapped(partial(_case_survey, scheme=scheme), list(masks.items()), workers, "components")
    largest = {name: tuple(row[1][name] for row in rows if row[1][name]) for name in scheme.foreground}
    return Survey(tuple(row[0] for row in rows), largest)


def _mapped(task: Any, items: Sequence[tuple[Any, ...]], workers: int, progress: str) -> list[Any]:
    """The task's value for each item, in order."""
    outcomes = {
        outcome.name: outcome for outcome in map_cases(task, items, workers=workers, names=[i[0] for i in items], progress=progress)
    }
    failures = [str(outcome.error) for outcome in outcomes.values() if outcome.error is not None]
    if failures:
        raise CasesFailed(failures, len(items) - len(failures))
    return [outcomes[item[0]].value for item in items]


def _case_dice(
    item: tuple[str, Path, Mapping[str, Path]], *, scheme: LabelScheme, tolerance: float
) -> tuple[dict[str, list[float]], list[bool]]:
    case, path, masks = item
    reference = read_mask(path, case=case)
    dice = {name: _dice(_on_its_grid(case, mask, reference, tolerance), reference.array, scheme) for name, mask in masks.items()}
    shown = set(np.unique(reference.array).tolist())
    return dice, [not shown.isdisjoint(values) for values in scheme.foreground.values()]


def _case_after_rules(
    item: tuple[str, Path, Path], *, sequences: Sequence[Rules], scheme: LabelScheme, tolerance: float
) -> list[list[float]]:
    case, path, mask = item
    reference = read_mask(path, case=case)
    drawn = _on_its_grid(case, mask, reference, tolerance)
    box = bounding_box((drawn != 0) | (reference.array != 0)) or (slice(0, 1),) * drawn.ndim
    tried = _Tried(drawn[box], reference.geometry.spacing, scheme)
    return [_dice(tried.after(sequence), reference.array[box], scheme) for sequence in sequences]


def _case_survey(item: tuple[str, Path], *, scheme: LabelScheme) -> tuple[float, dict[str, float]]:
    case, path = item
    mask = read_mask(path, case=case)
    voxel = float(np.prod(mask.geometry.spacing))
    largest = {name: find_components(mask.array, [name], scheme).voxels.max(initial=0) * voxel for name in scheme.foreground}
    return voxel, largest


class _Tried:
    """A mask after rules; what several sequences of rules begin with is worked out once."""

    def __init__(self, mask: np.ndarray, spacing: Sequence[float], scheme: LabelScheme):
        self.spacing, self.scheme = spacing, scheme
        self.masks: dict[Rules, np.ndarray] = {(): mask}
        self.components: dict[tuple[Rules, tuple[str, ...]], Components] = {}

    def after(self, rules: Rules) -> np.ndarray:
        if not rules:
            return self.masks[()]
        *before, last = rules
        mask = self._kept(tuple(before))
        key = (tuple(before), last.classes)
        if key not in self.components:
            self.components[key] = find_components(mask, last.classes, self.scheme)
        return apply_rule(mask, last, self.spacing, self.scheme, self.components[key])

    def _kept(self, rules: Rules) -> np.ndarray:
        if rules not in self.masks:
            self.masks[rules] = self.after(rules)
        return self.masks[rules]


def _on_its_grid(case: str, path: Path, reference: Image, tolerance: float) -> np.ndarray:
    mask = read_mask(path, case=case)
    check_same_grid(reference.geometry, mask.geometry, tolerance=tolerance, case=case, names=("the reference", "the prediction"))
    return mask.array


def _dice(mask: np.ndarray, reference: np.ndarray, scheme: LabelScheme) -> list[float]:
    box = bounding_box((mask != 0) | (reference != 0)) or (slice(0, 1),) * mask.ndim
    mask, reference = mask[box], reference[box]
    counted = np.ones(mask.shape, bool) if scheme.ignore is None else reference != scheme.ignore
    return [
        count_voxels(np.isin(mask, values) & counted, np.isin(reference, values) & counted).dice for values in scheme.foreground.values()
    ]
