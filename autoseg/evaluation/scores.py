"""The scores of one case: every metric for every label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from autoseg.evaluation.lesions import LesionCounts, lesion_counts
from autoseg.evaluation.overlap import VoxelCounts, bounding_box, count_voxels, volume_ml
from autoseg.evaluation.surface import surface_distances

Label = int | tuple[int, ...]
"""A label's value in the mask; several values for a region that is their union."""

Empty = Literal["", "both", "reference", "prediction"]

METRICS = ("dice", "surface_dice", "hd95_mm", "lesion_f1", "iou")
"""The metrics that are averaged over cases."""

SCORE_COLUMNS = (
    *METRICS,
    *("volume_reference_ml", "volume_prediction_ml", "empty"),
    *("lesions_tp", "lesions_fp", "lesions_fn"),
    *("tp", "fp", "fn", "tn"),
)
"""What `Scores.to_dict` holds, in its order."""


@dataclass(frozen=True)
class Settings:
    """What the metrics depend on: tolerance of the surface Dice (mm), what a pair of lesions must exceed (IoU), 6/18/26 neighbours."""

    tolerance_mm: float = 2.0
    lesion_iou: float = 0.1
    connectivity: int = 26

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance_mm) and self.tolerance_mm >= 0):
            raise ValueError(f"tolerance_mm must be 0 or more, found {self.tolerance_mm}")
        if not 0 <= self.lesion_iou < 1:
            raise ValueError(f"lesion_iou must lie in [0, 1), found {self.lesion_iou}")
        if self.connectivity not in (6, 18, 26):
            raise ValueError(f"connectivity must be 6, 18 or 26, found {self.connectivity}")


@dataclass(frozen=True)
class Scores:
    """One label of one case.

    Attributes:
        voxels, lesions: counts that Dice, intersection over union and lesion-wise F1 follow from.
        surface_dice: nan where both masks are empty, 0 where one is.
        hd95_mm: nan where both masks are empty, inf where one is.
        voxel_ml: volume of a voxel.
    """

    voxels: VoxelCounts
    lesions: LesionCounts
    surface_dice: float
    hd95_mm: float
    voxel_ml: float

    @property
    def volume_reference_ml(self) -> float:
        return self.voxels.reference * self.voxel_ml

    @property
    def volume_prediction_ml(self) -> float:
        return self.voxels.prediction * self.voxel_ml

    @property
    def dice(self) -> float:
        return self.voxels.dice

    @property
    def iou(self) -> float:
        return self.voxels.iou

    @property
    def lesion_f1(self) -> float:
        return self.lesions.f1

    @property
    def empty(self) -> Empty:
        """Which of the two masks is empty."""
        if not self.voxels.reference:
            return "reference" if self.voxels.prediction else "both"
        return "" if self.voxels.prediction else "prediction"

    def to_dict(self) -> dict[str, Any]:
        """Flat, by the names of `SCORE_COLUMNS`, with nan and inf as they are."""
        return {
            **{name: getattr(self, name) for name in (*METRICS, "volume_reference_ml", "volume_prediction_ml", "empty")},
            **{f"lesions_{name}": getattr(self.lesions, name) for name in ("tp", "fp", "fn")},
            **{name: getattr(self.voxels, name) for name in ("tp", "fp", "fn", "tn")},
        }


def score_masks(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: tuple[float, ...],
    labels: Mapping[str, Label],
    settings: Settings | None = None,
    *,
    ignore: int | None = None,
) -> dict[str, Scores]:
    """Scores of every label of one case.

    Args:
        prediction, reference: integer arrays of shape (z, y, x) on the same grid.
        spacing: voxel size in mm, (z, y, x).
        labels: foreground labels, name to value or values.
        settings: of the metrics.
        ignore: voxels with this value in the reference are taken out of both masks and of the count of true negatives.

    Raises:
        ValueError: the shapes differ or a spacing is not positive.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction and reference must have one shape, found {prediction.shape} and {reference.shape}")
    settings = settings or Settings()
    size = reference.size
    if ignore is not None:
        size -= int(np.count_nonzero(reference == ignore))
    # one voxel of margin keeps an axis of several slices from looking like an axis of one
    box = bounding_box((prediction != 0) | (reference != 0), margin=1) or (slice(0, 2),) * reference.ndim
    prediction, reference = prediction[box], reference[box]
    kept = None if ignore is None else reference != ignore
    return {
        name: _score(_where(prediction, value, kept), _where(reference, value, kept), spacing, settings, size)
        for name, value in labels.items()
    }


def _where(mask: np.ndarray, value: Label, kept: np.ndarray | None) -> np.ndarray:
    chosen = np.isin(mask, value) if isinstance(value, tuple) else mask == value
    return chosen if kept is None else chosen & kept


def _score(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], settings: Settings, size: int) -> Scores:
    """Scores of two bool masks that were cut from images of `size` counted voxels."""
    box = bounding_box(prediction | reference, margin=1) or (slice(0, 2),) * prediction.ndim
    prediction, reference = prediction[box], reference[box]
    inside = count_voxels(prediction, reference)
    counts = VoxelCounts(inside.tp, inside.fp, inside.fn, size - inside.tp - inside.fp - inside.fn)
    distances = surface_distances(prediction, reference, spacing)
    return Scores(
        voxels=counts,
        lesions=lesion_counts(prediction, reference, iou=settings.lesion_iou, connectivity=settings.connectivity),
        surface_dice=distances.surface_dice(settings.tolerance_mm),
        hd95_mm=distances.hausdorff(95),
        voxel_ml=volume_ml(1, spacing),
    )
