"""The shape of the primary tumour, by the definitions of the IBSI manual, from a marching-cubes mesh and from voxel centres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prognosis.features.feature import Feature
from prognosis.features.volume import farthest

MORPHOLOGY = {
    "mesh_volume": ("RNU0", "mm3", "volume inside the mesh"),
    "voxel_volume": ("YEKZ", "mm3", "voxels x voxel volume"),
    "surface_area": ("C0JK", "mm2", "area of the mesh"),
    "surface_to_volume": ("2PR5", "1/mm", "surface area / mesh volume"),
    "compactness_1": ("SKGS", "1", "volume / (sqrt(pi) area^(3/2))"),
    "compactness_2": ("BQWJ", "1", "36 pi volume^2 / area^3"),
    "spherical_disproportion": ("KRCK", "1", "area / (36 pi volume^2)^(1/3)"),
    "sphericity": ("QCFX", "1", "(36 pi volume^2)^(1/3) / area; 1 for a ball"),
    "asphericity": ("25C7", "1", "(area^3 / (36 pi volume^2))^(1/3) - 1"),
    "maximum_diameter": ("L0JK", "mm", "largest distance between two vertices of the mesh"),
    "major_axis": ("TDIC", "mm", "4 sqrt(largest eigenvalue of the voxel centres' covariance)"),
    "minor_axis": ("P9VJ", "mm", "4 sqrt(middle eigenvalue)"),
    "least_axis": ("7J51", "mm", "4 sqrt(smallest eigenvalue)"),
    "elongation": ("Q3CK", "1", "minor / major axis"),
    "flatness": ("N17B", "1", "least / major axis"),
    "volume_density_box": ("PBX1", "1", "mesh volume / volume of the mesh's axis-aligned bounding box"),
    "area_density_box": ("R59B", "1", "surface area / area of that box"),
    "volume_density_ellipsoid": ("6BDE", "1", "mesh volume / volume of the ellipsoid with these axes"),
    "area_density_ellipsoid": ("RDD2", "1", "surface area / area of that ellipsoid"),
    "volume_density_hull": ("R3ER", "1", "mesh volume / volume of the mesh's convex hull (solidity)"),
    "area_density_hull": ("7T7F", "1", "surface area / area of that hull"),
}
"""Name -> IBSI code, unit and definition, in the manual's order."""

NOT_TAKEN = ("voxel_volume", "compactness_1", "compactness_2", "spherical_disproportion", "asphericity")
"""The volume has its own column; the others are functions of sphericity alone and would count it five times."""

FEATURES = (
    *(
        Feature(f"shape_{name}_gtvp", unit, "image", "shape", f"primary tumour: {definition}", code)
        for name, (code, unit, definition) in MORPHOLOGY.items()
        if name not in NOT_TAKEN
    ),
    Feature(
        "shape_centre_of_mass_shift_gtvp",
        "mm",
        "image",
        "shape",
        "primary tumour: distance between the mean position of its voxels and the mean weighted by SUV",
        "KLMA",
        "PET",
    ),
)
"""On the image's own grid: no mask is interpolated before."""


SERIES_TERMS = 20


@dataclass(frozen=True)
class Mesh:
    """A closed triangle mesh.

    Attributes:
        vertices: mm, (n, 3) in z, y, x.
        faces: indices of vertices, (m, 3).
    """

    vertices: np.ndarray
    faces: np.ndarray

    @property
    def volume(self) -> float:
        """mm3: the sum of signed tetrahedra."""
        a, b, c = self._corners(self.vertices - self.vertices.mean(axis=0))
        return abs(float(np.einsum("ij,ij->", a, np.cross(b, c)))) / 6.0

    @property
    def area(self) -> float:
        """mm2."""
        a, b, c = self._corners(self.vertices)
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2.0

    def _corners(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return vertices[self.faces[:, 0]], vertices[self.faces[:, 1]], vertices[self.faces[:, 2]]


def surface_mesh(mask: np.ndarray, spacing: Sequence[float]) -> Mesh:
    """The surface of a mask at level 0.5 between voxel centres.

    Args:
        mask: bool, (z, y, x), not empty; may touch the array's border.
        spacing: mm, (z, y, x).

    Source: Lewiner et al., "Efficient implementation of marching cubes' cases with topological guarantees", J. Graphics Tools 2003.
    """
    from skimage.measure import marching_cubes

    # Vertices lie on half voxels, which float32 holds exactly; millimetres follow in float64.
    vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), level=0.5)
    return Mesh(vertices.astype(np.float64) * np.asarray(spacing, float), faces)


def morphology(mask: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """The shape of a mask, by the names in `MORPHOLOGY`; all nan where it is empty.

    Args:
        mask: bool, (z, y, x); for several components, of all of them together.
        spacing: mm, (z, y, x).

    Source: Zwanenburg et al., "The image biomarker standardization initiative", Radiology 2020, and its reference manual, section 3.1.
    """
    if not mask.any():
        return dict.fromkeys(MORPHOLOGY, math.nan)
    from scipy.spatial import ConvexHull

    mesh = surface_mesh(mask, spacing)
    volume, area = mesh.volume, mesh.area
    hull = ConvexHull(mesh.vertices)
    sides = np.ptp(mesh.vertices, axis=0)
    major, minor, least = axis_lengths(mask, spacing)
    round_area = (36 * math.pi * volume**2) ** (1 / 3)
    return {
        "mesh_volume": volume,
        "voxel_volume": int(np.count_nonzero(mask)) * float(np.prod(spacing)),
        "surface_area": area,
        "surface_to_volume": area / volume,
        "compactness_1": volume / (math.sqrt(math.pi) * area**1.5),
        "compactness_2": 36 * math.pi * volume**2 / area**3,
        "spherical_disproportion": area / round_area,
        "sphericity": round_area / area,
        "asphericity": area / round_area - 1,
        "maximum_diameter": farthest(mesh.vertices[hull.vertices]),
        "major_axis": major,
        "minor_axis": minor,
        "least_axis": least,
        "elongation": minor / major if major else math.nan,
        "flatness": least / major if major else math.nan,
        "volume_density_box": volume / float(sides.prod()),
        "area_density_box": area / (2 * float(sides[0] * sides[1] + sides[1] * sides[2] + sides[2] * sides[0])),
        "volume_density_ellipsoid": volume / (math.pi / 6 * major * minor * least) if least else math.nan,
        "area_density_ellipsoid": area / ellipsoid_area(major / 2, minor / 2, least / 2) if least else math.nan,
        "volume_density_hull": volume / float(hull.volume),
        "area_density_hull": area / float(hull.area),
    }


def axis_lengths(mask: np.ndarray, spacing: Sequence[float]) -> tuple[float, float, float]:
    """The lengths in mm of a mask's principal axes, largest first: 4 sqrt(eigenvalue of the voxel centres' covariance, divided by their
    number less 1); 0 along an axis where all voxels lie in one plane."""
    points = np.argwhere(mask) * np.asarray(spacing, float)
    points -= points.mean(axis=0)
    values = np.linalg.eigvalsh(points.T @ points / max(len(points) - 1, 1))
    tiny = values[-1] * 1e-12
    least, minor, major = (4 * math.sqrt(value) if value > tiny else 0.0 for value in values)
    return major, minor, least


def ellipsoid_area(a: float, b: float, c: float) -> float:
    """The area that the IBSI manual gives an ellipsoid with semi-axes a >= b >= c > 0: its Legendre series up to the 20th term.

    The manual takes the eccentricities against a where the exact series takes them against c, so this is a few per cent below the exact
    area (4 % on the digital phantom). The consensus values of RDD2 are by this one.

    Source: IBSI reference manual, section 3.1.21.
    """
    alpha2, beta2 = 1 - (b / a) ** 2, 1 - (c / a) ** 2
    half_sum, product2 = (alpha2 + beta2) / 2, alpha2 * beta2
    # (alpha beta)^n P_n(half_sum / (alpha beta)), by the recurrence of Legendre polynomials: finite also where alpha is 0.
    before, term = 0.0, 1.0
    total = 0.0
    for n in range(SERIES_TERMS + 1):
        total += term / (1 - 4 * n * n)
        before, term = term, ((2 * n + 1) * half_sum * term - n * product2 * before) / (n + 1)
    return 4 * math.pi * a * b * total


def centre_of_mass_shift(mask: np.ndarray, intensity: np.ndarray, spacing: Sequence[float], weighed: np.ndarray | None = None) -> float:
    """The distance in mm between the mean position of a mask's voxels and the mean weighted by intensity (IBSI KLMA); nan where the mask
    is empty or the intensities do not add up to more than 0.

    Args:
        mask: bool, (z, y, x).
        intensity: (z, y, x), the image.
        spacing: mm, (z, y, x).
        weighed: the voxels that count in the weighted mean, where some are left out of it; None means the mask.
    """
    inside = mask if weighed is None else weighed
    weights = np.asarray(intensity[inside], np.float64)
    total = float(weights.sum())
    if not mask.any() or total == 0.0:
        return math.nan
    step = np.asarray(spacing, float)
    plain = np.argwhere(mask).mean(axis=0) * step
    heavy = (weights @ np.argwhere(inside)) / total * step
    return float(np.linalg.norm(heavy - plain))
