"""How much tumour there is, in how many lesions, and how far apart: what the mask alone tells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.evaluation.lesions import label_components
from prognosis.features.feature import Feature

CONNECTIVITY = 26
"""Voxels that touch by a face, an edge or a corner belong to one lesion."""

PAIRS_AT_ONCE = 4_000_000

FEATURES = (
    Feature("volume_gtvp_ml", "ml", "volume", "volume", "voxels of the primary tumour x voxel volume", "YEKZ"),
    Feature("volume_gtvn_ml", "ml", "volume", "volume", "voxels of all nodes x voxel volume; 0 where there is no node", "YEKZ"),
    Feature("volume_total_ml", "ml", "volume", "volume", "voxels of primary and nodes x voxel volume", "YEKZ"),
    Feature("lesion_count", "1", "image", "volume", "26-connected components of the primary plus those of the nodes; no smallest size"),
    Feature("node_count", "1", "image", "volume", "26-connected components of the nodes; no smallest size"),
    Feature("dmax_mm", "mm", "image", "volume", "largest distance between the centres of any two tumour voxels, of whatever lesions"),
)


def bounding_box(mask: np.ndarray, margin: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """The smallest box that holds every voxel of a mask that is not 0, widened by a margin and cut at the image's border.

    Args:
        mask: (z, y, x), not all 0.
        margin: voxels on either side of each axis.
    """
    found = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        found.append(slice(max(0, int(hit[0]) - margin[axis]), min(mask.shape[axis], int(hit[-1]) + 1 + margin[axis])))
    return found[0], found[1], found[2]


def volume_ml(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """The volume of a mask in ml, by counting voxels (IBSI YEKZ, there in mm3).

    Args:
        mask: bool, (z, y, x).
        spacing: mm, (z, y, x).
    """
    return int(np.count_nonzero(mask)) * float(np.prod(spacing)) / 1000.0


def lesions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The 26-connected components of a bool mask, numbered from 1, and how many there are."""
    return label_components(mask, CONNECTIVITY)


def dmax_mm(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """The largest distance between the centres of any two voxels of a mask; 0 for one voxel, nan for none.

    Distances between voxels rather than between lesions' centroids: they do not jump when two lesions touch and become one component.

    Args:
        mask: bool, (z, y, x).
        spacing: mm, (z, y, x).

    Source: Cottereau et al., "New approaches in characterization of lesions dissemination in DLBCL patients on baseline PET/CT",
    Cancers 2021 (SDmax_Euc_Vox).
    """
    voxels = np.argwhere(_line_ends(mask))
    return farthest(voxels * np.asarray(spacing, float)) if len(voxels) else float("nan")


def farthest(points: np.ndarray) -> float:
    """The largest Euclidean distance between any two of some points (n, 3); 0 for a single one."""
    from scipy.spatial.distance import cdist

    rows = max(1, PAIRS_AT_ONCE // len(points))
    return max(float(cdist(points[start : start + rows], points[start:]).max()) for start in range(0, len(points), rows))


def _line_ends(mask: np.ndarray) -> np.ndarray:
    """The voxels that are the first or last of the mask on each of the three lines along the axes through them.

    Both ends of the longest distance are among these: the distance to a fixed point is convex along a line, so it grows towards an end.
    """
    ends = mask.copy()
    for axis in range(3):
        along = np.moveaxis(mask, axis, 0)
        kept = np.moveaxis(ends, axis, 0)
        seen_before = np.logical_or.accumulate(along, axis=0)
        seen_after = np.logical_or.accumulate(along[::-1], axis=0)[::-1]
        between = np.zeros_like(along)
        between[1:-1] = seen_before[:-2] & seen_after[2:]
        kept &= ~between
    return ends
