"""Connected components left out of a previous stage's masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from planners.plan import MaskComponents


@dataclass(frozen=True)
class ComponentParameters:
    """`chosen`: (index of the class, a number in [0, 1) that picks one of its components); `largest_share`: less of the patch than this
    is what a component fills that may go."""

    chosen: tuple[tuple[int, float], ...]
    largest_share: float


def sample(spec: MaskComponents, rng: np.random.Generator, classes: int) -> ComponentParameters | None:
    """The classes that lose a component in one sample, or None where none does."""
    if rng.random() >= spec.probability:
        return None
    hits, picks = rng.random(classes) < spec.class_probability, rng.random(classes)
    return ComponentParameters(
        tuple((index, float(pick)) for index, (hit, pick) in enumerate(zip(hits, picks, strict=True)) if hit), spec.largest_share
    )


def apply(masks: np.ndarray, parameters: ComponentParameters) -> np.ndarray:
    """The masks, bool (classes, ...), without the components that were picked; changed in place. Diagonal neighbours are connected."""
    for index, pick in parameters.chosen:
        labels, count = ndimage.label(masks[index], structure=np.ones((3,) * (masks.ndim - 1), bool))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        small = np.flatnonzero(sizes < parameters.largest_share * labels.size)
        if len(small):
            masks[index] &= labels != small[int(pick * len(small))] + 1
    return masks
