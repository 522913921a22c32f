"""Where an image's voxels lie in the patient, and whether two images share a grid."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoseg.errors import GeometryError

logger = logging.getLogger(__name__)

IDENTITY_DIRECTION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
NOTED_DISPLACEMENT = 0.001
"""Voxels; what single-precision headers lose lies far below."""
REPAIRABLE_SKEW = 1e-3
"""How far a direction matrix's columns may be from orthonormal (largest entry of D'D - I) and still be rounded to the nearest rotation."""


@dataclass(frozen=True)
class Geometry:
    """The grid of an image.

    Attributes:
        shape: voxels, (z, y, x). A 2-D image has z = 1.
        spacing: mm, (z, y, x). A 2-D image has its larger in-plane spacing in z, so that z is never an axis of better resolution.
        origin: position of the centre of voxel (0, 0, 0), mm, (x, y, z), LPS, as in ITK.
        direction: 3x3, row by row, as in ITK: column k is the direction, in the patient, of the image's k-th axis in the order (x, y, z).
        dimension: of the file, 2 or 3: a mask is written with as many axes as its image.

    Raises:
        GeometryError: a value is not finite, a size or spacing not positive, or a length is wrong.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY_DIRECTION
    dimension: int = 3

    def __post_init__(self) -> None:
        for name, length, kind in (("shape", 3, int), ("spacing", 3, float), ("origin", 3, float), ("direction", 9, float)):
            values = tuple(kind(value) for value in np.ravel(getattr(self, name)))
            if len(values) != length or not all(math.isfinite(value) for value in values):
                raise GeometryError(f"{name} {getattr(self, name)} must be {length} finite numbers")
            object.__setattr__(self, name, values)
        if min(self.shape) < 1 or min(self.spacing) <= 0:
            raise GeometryError(f"shape {self.shape} and spacing {self.spacing} must be positive")
        if self.dimension not in (2, 3) or (self.dimension == 2 and self.shape[0] != 1):
            raise GeometryError(f"an image of dimension {self.dimension} and shape {self.shape} is not possible; 2-D images have one slice")

    @property
    def matrix(self) -> np.ndarray:
        """3x3 float64 that takes a voxel step (x, y, z) to a displacement in mm (x, y, z)."""
        return np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing[::-1])

    def positions(self, voxels: Any) -> np.ndarray:
        """Patient positions (mm; x, y, z) of voxel coordinates (z, y, x); arrays of shape (..., 3)."""
        return np.asarray(voxels, float)[..., ::-1] @ self.matrix.T + np.asarray(self.origin)

    def __str__(self) -> str:
        size = "x".join(str(n) for n in self.shape)
        place = f"origin {_numbers(self.origin)} (x, y, z), direction {_numbers(self.direction)}"
        return f"{size} voxels of {_numbers(self.spacing)} mm (z, y, x), {place}"


def corner_displacement(a: Geometry, b: Geometry) -> float:
    """How far apart the outer corners of two grids lie: the largest distance, in voxels of `a`, of a corner of `b` from that corner of `a`.

    Corners are the outer edges of the corner voxels, so the spacing of a single slice counts too.
    """
    ends = [np.array(list(itertools.product(*((-0.5, n - 0.5) for n in g.shape)))) for g in (a, b)]
    displacement = (b.positions(ends[1]) - a.positions(ends[0])) @ np.linalg.pinv(a.matrix).T
    return float(np.linalg.norm(displacement, axis=-1).max())


def check_same_grid(
    a: Geometry, b: Geometry, *, tolerance: float = 0.1, case: str = "", names: Sequence[str] = ("the first image", "the second image")
) -> str | None:
    """None where two grids are the same, or a note (also logged) where corners lie apart by more than 0.001 voxel but within the tolerance.

    Args:
        tolerance: largest accepted distance of corresponding corners, voxels of `a`.
        names: what `a` and `b` are, for messages.

    Raises:
        GeometryError: the shapes differ, or corners lie further apart than the tolerance.
    """
    displacement = corner_displacement(a, b) if a.shape == b.shape else math.inf
    if displacement <= NOTED_DISPLACEMENT:
        return None
    who = f"case {case}: " if case else ""
    numbers = f"{names[0]} is {a}; {names[1]} is {b}"
    if a.shape != b.shape:
        raise GeometryError(
            f"{who}{names[1]} and {names[0]} do not share a grid, their shapes differ: {numbers}. Resample one onto the other's grid."
        )
    if not displacement <= tolerance:
        raise GeometryError(
            f"{who}{names[1]} and {names[0]} do not share a grid, corners lie up to {displacement:.4g} voxels apart "
            f"(accepted: {tolerance:g}): "
            f"{numbers}. Resample one onto the other's grid, or copy the header if you know that the voxels belong together."
        )
    note = f"{who}the grids of {names[0]} and {names[1]} differ by {displacement:.2g} voxels, that of {names[0]} is used"
    logger.warning("%s", note)
    return note


def skew(direction: Sequence[float]) -> float:
    """How far a 3x3 direction matrix (row by row) is from orthonormal: the largest entry of |D'D - I|; inf where a value is not finite."""
    matrix = np.reshape(np.asarray(direction, float), (3, 3))
    return float(np.abs(matrix.T @ matrix - np.eye(3)).max()) if np.isfinite(matrix).all() else math.inf


def nearest_orthonormal(direction: Sequence[float]) -> tuple[float, ...]:
    """The orthonormal 3x3 matrix (row by row; a reflection stays one) that is nearest in the Frobenius norm.

    Source: the orthogonal Procrustes problem; Schoenemann, Psychometrika 1966.
    """
    left, _, right = np.linalg.svd(np.reshape(np.asarray(direction, float), (3, 3)))
    return tuple((left @ right).ravel().tolist())


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
