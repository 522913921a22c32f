"""CT, PET and mask onto one grid, by where they lie in the patient.

Images are interpolated linearly. A cubic spline overshoots at the foot and the top of a peak: on the eight PET volumes of the sarcoma set
that have their own grid, brought to their CTs' 1 mm pixels, it made up to 15 000 voxels of negative SUV a patient and a largest SUV of
1.00 to 1.07 times the scanner's. Linear interpolation invents nothing, and its largest SUV is 0.98 to 1.00 times the scanner's. Where the
new grid is coarser than the old one, the image is first blurred to the new voxels' size, so that a voxel speaks for its volume and noise
does not fold into it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoseg.errors import DatasetError
from autoseg.images import Geometry, Image, corner_displacement, from_sitk, reorientation_to_canonical, to_sitk
from autoseg.preprocessing.resample import new_shape

if TYPE_CHECKING:
    import SimpleITK

SAME_GRID = 0.001
"""Voxels that the corners of two images of one grid lie apart at most; then nothing is interpolated."""

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1."""


@dataclass(frozen=True)
class Onto:
    """The grid to bring a patient's images to.

    Args:
        image: "CT" or "PT", whose grid it is; "" for a spacing.
        spacing: mm along the patient's (z, y, x), over the CT's field of view.
    """

    image: str = "CT"
    spacing: tuple[float, float, float] | None = None

    @staticmethod
    def parse(text: str) -> Onto:
        """What `--onto` says: CT, PT, or one spacing in mm or three (z,y,x).

        Raises:
            DatasetError: it is none of these.
        """
        if text.upper() in ("CT", "PT", "PET"):
            return Onto("CT" if text.upper() == "CT" else "PT")
        try:
            numbers = tuple(float(part) for part in text.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) == 1:
            numbers *= 3
        if len(numbers) != 3 or not all(0 < number < math.inf for number in numbers):
            raise DatasetError(f"--onto {text}: must be CT, PT, or a spacing in mm such as 1 or 3,1,1 (z, y, x)")
        return Onto("", (numbers[0], numbers[1], numbers[2]))

    def __str__(self) -> str:
        return self.image or ",".join(f"{value:g}" for value in self.spacing or ())

    def grid(self, ct: Geometry, pt: Geometry) -> Geometry:
        """The grid of a patient with that CT and PET."""
        if self.spacing is None:
            return ct if self.image == "CT" else pt
        axes = reorientation_to_canonical(ct).permutation
        spacing = tuple(self.spacing[axes.index(axis)] for axis in range(3))
        shape = new_shape(ct.shape, ct.spacing, spacing)
        # Both grids have their middle in common, so that what the rounded shape adds or leaves out is the same on both sides.
        first = [(old - 1) / 2 - (new - 1) / 2 * s / t for old, new, s, t in zip(ct.shape, shape, spacing, ct.spacing, strict=True)]
        return Geometry(shape, spacing, tuple(ct.positions(first).tolist()), ct.direction, ct.dimension)


def resample(image: Image, grid: Geometry, *, outside: float) -> np.ndarray:
    """An image's values (z, y, x) at the voxels of another grid; the array itself where it is the same grid.

    Args:
        outside: the value beyond the image's field of view, which ends with its outermost voxels.

    Returns:
        float32 where anything was interpolated; no value lies beyond those of the image, but for `outside`.
    """
    if same_grid(image.geometry, grid):
        return image.array
    array = image.array.astype(np.float32)
    sigma = _blur(image.geometry, grid)
    if any(sigma):
        from scipy.ndimage import gaussian_filter

        array = gaussian_filter(array, sigma, mode="nearest")
    return _interpolated(to_sitk(array, image.geometry), grid, "sitkLinear", outside)


def resample_mask(mask: np.ndarray, geometry: Geometry, grid: Geometry) -> np.ndarray:
    """A mask (z, y, x) on another grid: the label whose share, interpolated linearly, is largest; 0 outside."""
    if same_grid(geometry, grid):
        return mask
    return _interpolated(to_sitk(mask, geometry), grid, "sitkLabelLinear", 0)


def field_of_view(source: Geometry, grid: Geometry) -> np.ndarray:
    """Which voxels of a grid lie inside an image's field of view (bool (z, y, x))."""
    if same_grid(source, grid):
        return np.ones(grid.shape, bool)
    return _interpolated(to_sitk(np.ones(source.shape, np.uint8), source), grid, "sitkNearestNeighbor", 0).astype(bool)


def same_grid(a: Geometry, b: Geometry) -> bool:
    """Whether two grids are one."""
    return a.shape == b.shape and corner_displacement(a, b) <= SAME_GRID


def _interpolated(image: SimpleITK.Image, grid: Geometry, interpolator: str, outside: float) -> np.ndarray:
    import SimpleITK

    resampled = SimpleITK.Resample(
        image,
        grid.shape[::-1],
        SimpleITK.Transform(),
        getattr(SimpleITK, interpolator),
        grid.origin,
        grid.spacing[::-1],
        grid.direction,
        outside,
        image.GetPixelID(),
    )
    return from_sitk(resampled).array


def _blur(source: Geometry, grid: Geometry) -> tuple[float, ...]:
    """Standard deviations, in voxels of `source` along (z, y, x), of the Gaussian that widens its voxels to the new ones; 0 where these
    are no larger.

    Source: Cardoso et al., "Scale factor point spread function matching", MICCAI 2015, equation for axis-aligned grids.
    """
    directions: Sequence[np.ndarray] = [np.reshape(g.direction, (3, 3))[:, ::-1] for g in (source, grid)]
    nearest = np.abs(directions[0].T @ directions[1]).argmax(axis=1)  # the new axis along each old one
    ratios = [grid.spacing[new] / old for old, new in zip(source.spacing, nearest, strict=True)]
    return tuple(math.sqrt(max(ratio**2 - 1, 0)) / FWHM for ratio in ratios)
