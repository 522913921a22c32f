"""How much two masks cover each other: voxel counts, Dice, intersection over union, volumes.

Empty masks: where both are empty nothing was asked and nothing was claimed, so an overlap is nan (reported n/a, left out of means and
counted); where one is empty it is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class VoxelCounts:
    """Voxels by agreement: true and false positives, false and true negatives of the prediction."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def reference(self) -> int:
        """Voxels of the reference mask."""
        return self.tp + self.fn

    @property
    def prediction(self) -> int:
        """Voxels of the predicted mask."""
        return self.tp + self.fp

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN); nan where both masks are empty."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN); nan where both masks are empty."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)


def count_voxels(prediction: np.ndarray, reference: np.ndarray) -> VoxelCounts:
    """Voxel counts of two masks on the same grid.

    Args:
        prediction, reference: bool arrays of the same shape.

    Raises:
        ValueError: the shapes differ or an array is not bool.
    """
    check_masks(prediction, reference)
    tp = int(np.count_nonzero(prediction & reference))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    return VoxelCounts(tp, fp, fn, reference.size - tp - fp - fn)


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Dice similarity of two bool arrays of one shape: 2 |A n B| / (|A| + |B|), in [0, 1]; nan where both are empty.

    Raises:
        ValueError: the shapes differ or an array is not bool.

    Source: Dice, "Measures of the amount of ecologic association between species", Ecology 1945.
    """
    return count_voxels(prediction, reference).dice


def iou(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Intersection over union (Jaccard) of two bool arrays of one shape, in [0, 1]; nan where both are empty.

    Raises:
        ValueError: the shapes differ or an array is not bool.
    """
    return count_voxels(prediction, reference).iou


def aggregated_dice(counts: Iterable[VoxelCounts], voxel_volumes: Iterable[float]) -> float:
    """Dice of all cases taken as one: 2 sum |A n B| / sum (|A| + |B|) in volumes; nan where every mask is empty. Empty references count.

    Args:
        counts: one a case.
        voxel_volumes: one a case, all in one unit: cases with smaller voxels have more of them and must not weigh more.

    Raises:
        ValueError: not as many volumes as cases.

    Source: Andrearczyk et al., "Automatic head and neck tumor segmentation and outcome prediction relying on FDG-PET/CT images", Medical
    Image Analysis 2023 (DSCagg).
    """
    pairs = list(zip(counts, voxel_volumes, strict=True))
    both = math.fsum(2 * count.tp * volume for count, volume in pairs)
    return _ratio(both, math.fsum((count.reference + count.prediction) * volume for count, volume in pairs))


def volume_ml(voxels: int, spacing: tuple[float, ...]) -> float:
    """Volume in millilitres of that many voxels of `spacing` mm."""
    return voxels * math.prod(spacing) / 1000


def check_masks(prediction: np.ndarray, reference: np.ndarray) -> None:
    """Nothing, for two bool arrays of one shape.

    Raises:
        ValueError: the shapes differ or an array is not bool.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction and reference must have one shape, found {prediction.shape} and {reference.shape}")
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != bool:
            raise ValueError(f"{name} must be a bool array, found {mask.dtype}")


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...] | None:
    """Slices that hold all true voxels and `margin` more on each side as far as the array goes; None where nothing is true."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        # what is outside the slices found so far holds nothing and need not be looked at again
        inner = mask[tuple(box)]
        used = np.flatnonzero(inner.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not used.size:
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    sizes = zip(box, mask.shape, strict=True)
    return tuple(slice(max(part.start - margin, 0), min(part.stop + margin, size)) for part, size in sizes)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
