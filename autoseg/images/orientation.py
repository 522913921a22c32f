"""Turning images to one orientation and back, exactly: only axes are swapped and reversed, no voxel is interpolated."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from autoseg.images.geometry import Geometry


@dataclass(frozen=True)
class Reorientation:
    """An axis permutation followed by reversals of the last three axes (z, y, x) of an array.

    Attributes:
        permutation: new axis k is the old axis permutation[k].
        flips: which of the new axes are reversed.
    """

    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self.permutation == (0, 1, 2) and not any(self.flips)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """A view of `array` (..., z, y, x) in the new orientation."""
        return self._flip(self._permute(array, self.permutation))

    def restore(self, array: np.ndarray) -> np.ndarray:
        """A view of `array` (..., z, y, x), which is in the new orientation, in the old one: `restore(apply(a))` is `a`."""
        return self._permute(self._flip(array), tuple(np.argsort(self.permutation).tolist()))

    def apply_geometry(self, geometry: Geometry) -> Geometry:
        """The grid of an applied array: every voxel keeps its place in the patient."""
        columns = np.reshape(geometry.direction, (3, 3))[:, ::-1]  # in the arrays' order of axes
        signs = np.where(self.flips, -1.0, 1.0)
        first = np.zeros(3)  # the old index of the voxel that becomes (0, 0, 0)
        for new, old in enumerate(self.permutation):
            first[old] = geometry.shape[old] - 1 if self.flips[new] else 0
        direction = (columns[:, self.permutation] * signs)[:, ::-1]
        stays_flat = geometry.dimension == 2 and self.permutation[0] == 0
        return Geometry(
            tuple(geometry.shape[old] for old in self.permutation),
            tuple(geometry.spacing[old] for old in self.permutation),
            geometry.origin if not any(self.flips) else tuple(geometry.positions(first).tolist()),
            tuple(direction.ravel().tolist()),
            2 if stays_flat else 3,
        )

    def _permute(self, array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
        leading = array.ndim - 3
        return array.transpose(*range(leading), *(leading + axis for axis in order))

    def _flip(self, array: np.ndarray) -> np.ndarray:
        return array[(..., *(slice(None, None, -1 if flip else 1) for flip in self.flips))]


def reorientation_to_canonical(geometry: Geometry) -> Reorientation:
    """What makes the array axes z, y, x run towards superior, posterior, left, as nearly as whole axes can.

    For an oblique image it is the permutation whose axes lie closest to the patient's (largest sum of absolute cosines), the given order
    winning a tie. An image in canonical orientation is left alone.
    """
    cosines = np.reshape(geometry.direction, (3, 3))[::-1, ::-1]  # rows: patient z, y, x; columns: array z, y, x
    orders = list(itertools.permutations(range(3)))
    if geometry.dimension == 2:
        orders = [order for order in orders if order[0] == 0]
    sums = [sum(abs(cosines[new, old]) for new, old in enumerate(order)) for order in orders]
    best = next(order for order, total in zip(orders, sums, strict=True) if total >= max(sums) - 1e-6)
    return Reorientation(best, tuple(bool(cosines[new, old] < 0) for new, old in enumerate(best)))


def reorientation_for(geometry: Geometry, orientation: str) -> Reorientation:
    """What brings a stored image into a plan's orientation.

    Args:
        geometry: of the image as stored.
        orientation: "canonical", see `reorientation_to_canonical`; "ras": the same axes, but y and x reversed, so that they run towards
            anterior and right, as nnU-Net's NibabelIOWithReorient turns images; "as_stored": nothing changes.

    Raises:
        ValueError: another one.
    """
    if orientation == "as_stored":
        return Reorientation((0, 1, 2), (False, False, False))
    turn = reorientation_to_canonical(geometry)
    if orientation == "canonical":
        return turn
    if orientation != "ras":
        raise ValueError(f"orientation must be canonical, ras or as_stored, found {orientation!r}")
    flip_z, flip_y, flip_x = turn.flips
    return Reorientation(turn.permutation, (flip_z, not flip_y, not flip_x))


def orientation_code(geometry: Geometry) -> str:
    """Where the image's axes x, y, z run to, as three of the letters L R P A S I: "LPS" for a canonical image."""
    turn = reorientation_to_canonical(geometry)
    letters = ["", "", ""]
    for new, old in enumerate(turn.permutation):
        letters[2 - old] = ("SI", "PA", "LR")[new][turn.flips[new]]
    return "".join(letters)
