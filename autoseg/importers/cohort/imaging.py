"""From a phantom patient to CT, PET and mask as a hospital stores them, each on its own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.images import Geometry
from autoseg.importers.cohort.anatomy import Frame, Scene, render
from autoseg.importers.cohort.centres import Grid, Scanner

SLAB_VOXELS = 4_000_000
"""CT is made in slabs of about so many voxels, which bounds the memory."""

LOWEST_HU, HIGHEST_HU = -1024, 3071


@dataclass(frozen=True)
class Pose:
    """How a patient lies and how large he or she is: scale, shift in mm (z, y, x), turn about z in radians."""

    scale: float
    shift: tuple[float, float, float]
    turn: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Pose:
        """Of one patient."""
        z, y, x = rng.uniform(-5, 5, size=3).tolist()
        return Pose(rng.uniform(0.95, 1.06), (z, y, x), float(np.deg2rad(rng.uniform(-10, 10))))


@dataclass(frozen=True)
class Scan:
    """A patient's images: CT (HU, whole numbers) and mask (uint8) on one grid, PET (SUV) on another; arrays (z, y, x)."""

    ct: np.ndarray
    mask: np.ndarray
    ct_geometry: Geometry
    pet: np.ndarray
    pet_geometry: Geometry


def scan(scene: Scene, pose: Pose, scanner: Scanner, size: str, rng: np.random.Generator) -> Scan:
    """What a scanner makes of a patient.

    Args:
        size: "demo" or "full".
        rng: of the noise.
    """
    ct_grid, pet_grid = scanner.grids[size]
    ct, mask = _ct(scene, pose, scanner, ct_grid, rng)
    pet = _pet(scene, pose, scanner, pet_grid, rng)
    if scanner.flipped:
        ct, mask, pet = (np.ascontiguousarray(array[:, ::-1, ::-1]) for array in (ct, mask, pet))
    return Scan(ct, mask, _geometry(ct_grid, scanner.flipped), pet, _geometry(pet_grid, scanner.flipped))


def _ct(scene: Scene, pose: Pose, scanner: Scanner, grid: Grid, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import gaussian_filter

    ct, mask = np.empty(grid.shape, np.int16), np.empty(grid.shape, np.uint8)
    step = max(1, SLAB_VOXELS // (grid.shape[1] * grid.shape[2]))
    for start in range(0, grid.shape[0], step):
        slab = slice(start, min(start + step, grid.shape[0]))
        hu, _, mask[slab] = render(scene, _frame(grid, pose, slab))
        # Noise of neighbouring pixels goes together, that of slices does not.
        noise = gaussian_filter(rng.standard_normal(hu.shape, np.float32), (0, 0.5, 0.5))
        hu += noise * (scanner.ct_noise / noise.std()) + scanner.ct_offset
        ct[slab] = np.clip(np.rint(hu), LOWEST_HU, HIGHEST_HU)
    return ct, mask


def _pet(scene: Scene, pose: Pose, scanner: Scanner, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    _, uptake, _ = render(scene, _frame(grid, pose, slice(0, grid.shape[0])))
    blurred = gaussian_filter(uptake, [scanner.resolution_mm / step for step in grid.spacing])
    noise = gaussian_filter(rng.standard_normal(uptake.shape, np.float32), 0.7)
    noise *= scanner.pet_noise / noise.std()
    return scanner.pet_scale * np.maximum(blurred + noise * np.sqrt(np.maximum(blurred, 0.05)), 0)


def _frame(grid: Grid, pose: Pose, slab: slice) -> Frame:
    """The phantom's coordinates of the voxels of some slices."""
    z, y, x = (
        (middle - shift + (np.arange(count) - (count - 1) / 2) * step) / pose.scale
        for middle, shift, count, step in zip(grid.middle, pose.shift, grid.shape, grid.spacing, strict=True)
    )
    cos, sin = float(np.cos(pose.turn)), float(np.sin(pose.turn))
    planes = (cos * y[:, None] + sin * x[None, :], cos * x[None, :] - sin * y[:, None])
    edge = float(np.mean(grid.spacing)) / 2 / pose.scale
    return Frame(z[slab, None, None].astype(np.float32), *(plane[None].astype(np.float32) for plane in planes), edge)


def _geometry(grid: Grid, flipped: bool) -> Geometry:
    """The grid in the patient (x, y, z); flipped, its first voxel is the last one in x and y."""
    sign = np.array([-1.0, -1.0, 1.0]) if flipped else np.ones(3)
    half = np.array(grid.spacing[::-1]) * (np.array(grid.shape[::-1]) - 1) / 2
    origin = np.array(grid.middle[::-1]) - sign * half
    return Geometry(grid.shape, grid.spacing, tuple(origin.tolist()), tuple(np.diag(sign).ravel().tolist()))
