"""How far two surfaces lie apart: normalised surface Dice and the 95th percentile of the Hausdorff distance.

The surface of a mask, once for both metrics: it runs between voxel centres. Every cell of 2 x 2 x 2 neighbouring voxels whose corners are
not all equal holds one surface element; it sits in the cell's middle and has the area (mm2) of the triangles that marching cubes draws
there. Outside the image everything is background. An axis with one slice is no axis: there the cells are 2 x 2 and the elements pieces of a
contour with their length (mm). Distances are from an element to the nearest element of the other surface.

Empty masks: both empty gives nan for both metrics. One empty gives surface Dice 0 and an infinite distance.

Source: Nikolov et al., "Clinically applicable segmentation of head and neck anatomy", JMIR 2021, whose definition this is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from autoseg.evaluation.overlap import bounding_box, check_masks


@dataclass(frozen=True)
class Surface:
    """Elements of one mask's surface: `positions` mm (n, axes), `areas` mm2 (mm for contours) (n,)."""

    positions: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class SurfaceDistances:
    """Both ways: from each element of the one surface to the nearest of the other, mm, with the elements' areas."""

    prediction_mm: np.ndarray
    prediction_areas: np.ndarray
    reference_mm: np.ndarray
    reference_areas: np.ndarray

    def surface_dice(self, tolerance_mm: float) -> float:
        """Share of both surfaces within the tolerance of the other, in [0, 1]; nan where both are empty.

        Raises:
            ValueError: the tolerance is negative.
        """
        if not tolerance_mm >= 0:
            raise ValueError(f"tolerance_mm must not be negative, found {tolerance_mm}")
        total = self.prediction_areas.sum() + self.reference_areas.sum()
        if total == 0:
            return math.nan
        # a distance that equals the tolerance counts, whatever the rounding of spacing x voxels
        limit = tolerance_mm * (1 + 1e-9)
        near = self.prediction_areas[self.prediction_mm <= limit].sum() + self.reference_areas[self.reference_mm <= limit].sum()
        return float(near / total)

    def hausdorff(self, percent: float = 95) -> float:
        """The larger of both directions' area-weighted percentiles, mm; nan where both surfaces are empty, inf where one is."""
        empty = (self.prediction_mm.size == 0) + (self.reference_mm.size == 0)
        if empty:
            return math.nan if empty == 2 else math.inf
        return max(
            _weighted_percentile(self.prediction_mm, self.prediction_areas, percent),
            _weighted_percentile(self.reference_mm, self.reference_areas, percent),
        )


def surface_dice(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], tolerance_mm: float = 2.0) -> float:
    """Share of both surfaces that lies within a tolerance of the other surface (normalised surface Dice).

    Args:
        prediction, reference: bool arrays of shape (z, y, x) on the same grid.
        spacing: voxel size in mm, (z, y, x).
        tolerance_mm: how far apart two surface elements may lie and still agree.

    Returns:
        A float in [0, 1]; nan where both masks are empty, 0 where one is.

    Raises:
        ValueError: the shapes differ, an array is not bool, a spacing is not positive, or the tolerance is negative.

    Source: Nikolov et al., "Clinically applicable segmentation of head and neck anatomy", JMIR 2021.
    """
    return surface_distances(prediction, reference, spacing).surface_dice(tolerance_mm)


def hd95(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> float:
    """95th percentile of the symmetric Hausdorff distance in mm: the larger of both directions' area-weighted percentiles.

    Args:
        prediction, reference: bool arrays of shape (z, y, x) on the same grid.
        spacing: voxel size in mm, (z, y, x).

    Returns:
        A float in mm; nan where both masks are empty, inf where one is.

    Raises:
        ValueError: the shapes differ, an array is not bool, or a spacing is not positive.
    """
    return surface_distances(prediction, reference, spacing).hausdorff(95)


def surface_distances(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> SurfaceDistances:
    """Distances between two masks' surfaces, from which both metrics follow.

    Args:
        prediction, reference: bool arrays of shape (z, y, x) on the same grid.
        spacing: voxel size in mm, (z, y, x).

    Raises:
        ValueError: the shapes differ, an array is not bool, or a spacing is not positive.
    """
    from scipy.spatial import KDTree

    check_masks(prediction, reference)
    a, b = surface(prediction, spacing), surface(reference, spacing)
    if not a.areas.size or not b.areas.size:
        far = [np.full(s.areas.size, math.inf) for s in (a, b)]
        return SurfaceDistances(far[0], a.areas, far[1], b.areas)
    from_prediction, _ = KDTree(b.positions).query(a.positions)
    from_reference, _ = KDTree(a.positions).query(b.positions)
    return SurfaceDistances(from_prediction, a.areas, from_reference, b.areas)


def surface(mask: np.ndarray, spacing: tuple[float, ...]) -> Surface:
    """The elements of a mask's surface.

    Args:
        mask: bool array (z, y, x); an axis of length 1 is left out.
        spacing: voxel size in mm, one an axis.

    Raises:
        ValueError: a spacing is not positive, or there are not as many as axes.
    """
    if len(spacing) != mask.ndim or not all(s > 0 and math.isfinite(s) for s in spacing):
        raise ValueError(f"spacing must be {mask.ndim} positive numbers, found {tuple(spacing)}")
    axes = [axis for axis, size in enumerate(mask.shape) if size > 1]
    if len(axes) < 2:
        # a line of voxels has no contour: treat it as the thin plane that it was cut from
        axes = sorted({*axes, mask.ndim - 1, mask.ndim - 2})
    mask = mask.reshape([mask.shape[axis] for axis in axes])
    steps = tuple(float(spacing[axis]) for axis in axes)
    box = bounding_box(mask)
    if box is None:
        return Surface(np.zeros((0, len(axes))), np.zeros(0))
    codes = _cell_codes(mask[box])
    cells = np.nonzero((codes > 0) & (codes < 2 ** (2 ** len(axes)) - 1))
    start = np.array([part.start for part in box])
    positions = (np.stack(cells, axis=1) + start - 0.5) * steps
    return Surface(positions, _element_areas(steps)[codes[cells]])


def _cell_codes(mask: np.ndarray) -> np.ndarray:
    """For each cell between voxel centres one bit a corner, in the order of `_corners`; one cell more than voxels along each axis."""
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([size - 1 for size in padded.shape], np.uint8)
    for bit, corner in enumerate(_corners(mask.ndim)):
        codes |= padded[tuple(slice(c, c + n) for c, n in zip(corner, codes.shape, strict=True))] << np.uint8(bit)
    return codes


def _corners(dimension: int) -> list[tuple[int, ...]]:
    return list(product((0, 1), repeat=dimension))


@lru_cache(maxsize=64)
def _element_areas(steps: tuple[float, ...]) -> np.ndarray:
    """Area (3-D, mm2) or length (2-D, mm) of the surface inside a cell, by the cell's code.

    Marching cubes cuts some cells one way and their mirror image another; the mean over mirror images, and over exchanging inside and
    outside, makes the metrics the same for a flipped image.
    """
    dimension = len(steps)
    element = _contour_length if dimension == 2 else _triangle_area
    bits = 2**dimension
    codes = np.arange(2**bits)
    corners = (codes[:, None] >> np.arange(bits) & 1).reshape(-1, *(2,) * dimension)
    areas = np.array([0.0, *(element(corner.astype(np.float64), steps) for corner in corners[1:-1]), 0.0])
    mirrored = []
    for flips in product((False, True), repeat=dimension):
        flipped = np.flip(corners, [1 + axis for axis, flip in enumerate(flips) if flip]).reshape(-1, bits)
        code = flipped @ (1 << np.arange(bits))
        mirrored += [areas[code], areas[codes[-1] - code]]
    areas = np.mean(mirrored, axis=0)
    areas.flags.writeable = False
    return areas


def _triangle_area(corners: np.ndarray, steps: tuple[float, ...]) -> float:
    from skimage.measure import marching_cubes, mesh_surface_area

    vertices, faces, _, _ = marching_cubes(corners, 0.5, spacing=steps, method="lorensen")
    return float(mesh_surface_area(vertices, faces))


def _contour_length(corners: np.ndarray, steps: tuple[float, ...]) -> float:
    count = corners.sum()
    diagonal = math.hypot(*steps)
    if count != 2:
        return diagonal / 2
    if corners[0, 0] == corners[1, 1]:
        return diagonal
    return steps[0] if corners[0, 0] == corners[1, 0] else steps[1]


def _weighted_percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    """The smallest value that at least `percent` of the weight does not exceed."""
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    share /= share[-1]
    index = min(int(np.searchsorted(share, percent / 100)), values.size - 1)
    return float(values[order][index])
