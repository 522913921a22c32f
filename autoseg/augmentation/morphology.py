"""Dilation, erosion, opening and closing of a previous stage's masks by balls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from planners.plan import MaskMorphology

Operator = Literal["dilation", "erosion", "closing", "opening"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)

LARGEST_REACH_OF_BYTES = 10
"""Up to this reach the squared distances of `squared_distance`, and their sums on the way, fit into uint8."""


@dataclass(frozen=True)
class MorphologyParameters:
    """`steps`: what is done one after the other: (index of the class, operator, radius of the ball in voxels)."""

    steps: tuple[tuple[int, Operator, float], ...]


def sample(spec: MaskMorphology, rng: np.random.Generator, classes: int) -> MorphologyParameters | None:
    """The operations for one sample, classes in random order, or None where it gets none."""
    if rng.random() >= spec.probability:
        return None
    steps = []
    for index in rng.permutation(classes).tolist():
        if rng.random() < spec.class_probability:
            steps.append((index, OPERATORS[int(rng.integers(len(OPERATORS)))], float(rng.uniform(*spec.radius))))
    return MorphologyParameters(tuple(steps))


def apply(masks: np.ndarray, parameters: MorphologyParameters, classes: Sequence[Sequence[int]]) -> np.ndarray:
    """The masks, changed in place: what a class gains is taken from every class that shares no label with it.

    Args:
        masks: bool (classes, ...), two or three spatial axes.
        classes: the labels of each class.
    """
    for index, operator, radius in parameters.steps:
        before = masks[index].copy()
        masks[index] = operated(before, operator, radius)
        gained = masks[index] & ~before
        for other, labels in enumerate(classes):
            if not set(labels) & set(classes[index]):
                masks[other] &= ~gained
    return masks


def operated(mask: np.ndarray, operator: Operator, radius: float) -> np.ndarray:
    """A bool mask after one operation by the ball of all voxels within `radius` (voxels) of its centre.

    What lies beyond the border neither grows in nor wears off: it counts as background of what is dilated and as foreground of what is
    eroded, in each half of an opening or closing.
    """
    if operator == "dilation":
        return _dilated(mask, radius)
    if operator == "erosion":
        return ~_dilated(~mask, radius)
    if operator == "opening":
        return _dilated(~_dilated(~mask, radius), radius)
    return ~_dilated(~_dilated(mask, radius), radius)


def _dilated(mask: np.ndarray, radius: float) -> np.ndarray:
    reach = int(radius)
    return squared_distance(mask, reach) <= int(radius * radius)


def squared_distance(mask: np.ndarray, reach: int) -> np.ndarray:
    """Each voxel's squared distance (voxels) to the nearest voxel of a mask, exact up to `reach`; beyond it some value above reach^2.

    The minimum over all offsets of a squared distance is taken axis by axis: 2 x `reach` passes an axis, whatever the ball's volume.

    Args:
        mask: bool, any number of axes.
        reach: 0 to 100.
    """
    beyond = (reach + 1) ** 2
    best = np.where(mask, 0, beyond).astype(np.uint8 if reach <= LARGEST_REACH_OF_BYTES else np.uint16)
    for axis in range(best.ndim):
        source = np.moveaxis(best, axis, 0)
        best = best.copy()
        target = np.moveaxis(best, axis, 0)
        for step in range(1, min(reach, len(source) - 1) + 1):
            moved = source + best.dtype.type(step * step)
            np.minimum(target[:-step], moved[step:], out=target[:-step])
            np.minimum(target[step:], moved[:-step], out=target[step:])
    return best
