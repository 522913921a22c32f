"""Lesion by lesion: connected components of two masks, matched one to one by their intersection over union."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from autoseg.evaluation.overlap import check_masks

CONNECTIVITIES = {6: 1, 18: 2, 26: 3}
"""Neighbours of a voxel -> how many of its coordinates may change."""


@dataclass(frozen=True)
class LesionCounts:
    """Lesions found (tp), claimed without reason (fp) and missed (fn)."""

    tp: int
    fp: int
    fn: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); nan where neither mask has a lesion."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else math.nan

    @property
    def sensitivity(self) -> float:
        """Share of the reference's lesions that were found; nan where it has none."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else math.nan

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are right; nan where none was predicted."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else math.nan


def label_components(mask: np.ndarray, connectivity: int = 26) -> tuple[np.ndarray, int]:
    """Components of a bool array (z, y, x), numbered from 1, and how many there are.

    Raises:
        ValueError: the connectivity is none of 6, 18 and 26.
    """
    from scipy.ndimage import generate_binary_structure, label

    if connectivity not in CONNECTIVITIES:
        raise ValueError(f"connectivity must be one of {', '.join(map(str, CONNECTIVITIES))}, found {connectivity}")
    components, count = label(mask, structure=generate_binary_structure(mask.ndim, CONNECTIVITIES[connectivity]))
    return components, int(count)


def lesion_counts(prediction: np.ndarray, reference: np.ndarray, *, iou: float = 0.1, connectivity: int = 26) -> LesionCounts:
    """Counts of lesions found, claimed and missed.

    A lesion is a connected component. A predicted and a reference lesion may be paired where their intersection over union exceeds
    `iou`; every lesion is in at most one pair, and of all such pairings one with the most pairs counts. (Above 0.5 there is only one.)

    Args:
        prediction, reference: bool arrays of shape (z, y, x) on the same grid.
        iou: what a pair must exceed, in [0, 1).
        connectivity: 6, 18 or 26 neighbours.

    Raises:
        ValueError: shapes, dtypes, `iou` or `connectivity` are not as said.

    Source: Maier-Hein et al., "Metrics reloaded", Nature Methods 2024 (object detection, F1 at an IoU cutoff).
    """
    check_masks(prediction, reference)
    if not 0 <= iou < 1:
        raise ValueError(f"iou must lie in [0, 1), found {iou}")
    predicted, n_predicted = label_components(prediction, connectivity)
    referenced, n_referenced = label_components(reference, connectivity)
    found = _most_pairs(predicted, n_predicted, referenced, n_referenced, iou) if n_predicted and n_referenced else 0
    return LesionCounts(tp=found, fp=n_predicted - found, fn=n_referenced - found)


def aggregated_f1(counts: Iterable[LesionCounts]) -> float:
    """F1 of all cases' lesions taken as one; nan where there is none at all.

    Source: HECKTOR 2025, tasks and evaluation (F1agg, there with IoU > 0.3).
    """
    listed = list(counts)
    return LesionCounts(*(sum(getattr(c, name) for c in listed) for name in ("tp", "fp", "fn"))).f1


def _most_pairs(predicted: np.ndarray, n_predicted: int, referenced: np.ndarray, n_referenced: int, iou: float) -> int:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    both = (predicted > 0) & (referenced > 0)
    pairs, shared = np.unique(np.stack([predicted[both], referenced[both]]), axis=1, return_counts=True)
    size_predicted = np.bincount(predicted.ravel(), minlength=n_predicted + 1)
    size_referenced = np.bincount(referenced.ravel(), minlength=n_referenced + 1)
    union = size_predicted[pairs[0]] + size_referenced[pairs[1]] - shared
    allowed = shared > iou * union * (1 + 1e-12)  # an overlap of the limit itself does not exceed it, whatever 0.7 x union rounds to
    rows, columns = pairs[0][allowed] - 1, pairs[1][allowed] - 1
    graph = csr_array((np.ones(rows.size, np.uint8), (rows, columns)), shape=(n_predicted, n_referenced))
    return int(np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0))
