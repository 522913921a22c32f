"""Shapes in mm that can be sampled on any grid: signed distances, soft edges and smooth random fields.

Coordinates are arrays in mm that broadcast against each other: dense, or one vector for z and planes for y and x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Offset = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Coordinates (z, y, x) relative to a shape's middle."""


@dataclass(frozen=True)
class Waves:
    """A smooth random field: a sum of plane waves, hence the same field on every grid.

    Attributes:
        vectors: wave vectors, radians per mm, (waves, 3) as (z, y, x).
        phases: radians, (waves,).
        amplitude: of each wave.
    """

    vectors: np.ndarray
    phases: np.ndarray
    amplitude: float

    @staticmethod
    def draw(rng: np.random.Generator, count: int, wavelengths: tuple[float, float], deviation: float) -> Waves:
        """A field of that standard deviation over space; wavelengths are a range in mm."""
        vectors, phases = np.empty((count, 3)), np.empty(count)
        for wave in range(count):
            direction = rng.normal(size=3)
            vectors[wave] = direction * (2 * np.pi / rng.uniform(*wavelengths) / np.linalg.norm(direction))
            phases[wave] = rng.uniform(0, 2 * np.pi)
        return Waves(vectors, phases, deviation * math.sqrt(2 / count))

    def at(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The field at coordinates in mm."""
        field = np.zeros(np.broadcast_shapes(z.shape, y.shape, x.shape), np.result_type(z, y, x))
        for (along_z, along_y, along_x), phase in zip(self.vectors.tolist(), self.phases.tolist(), strict=True):
            field += np.sin(along_z * z + (along_y * y + along_x * x + phase))
        return self.amplitude * field


def ellipsoid_distance(offset: Offset, radii: np.ndarray) -> np.ndarray:
    """Signed distance to an ellipsoid in mm, negative inside: exact to first order at its surface, the usual |f| (|f| - 1) / |grad|."""
    axes = list(zip(offset, (float(radius) for radius in radii), strict=True))
    unit = np.sqrt(sum((part / radius) ** 2 for part, radius in axes))
    slope = np.sqrt(sum((part / radius**2) ** 2 for part, radius in axes))
    return np.where(slope > 0, unit * (unit - 1) / np.maximum(slope, 1e-9), -float(np.min(radii)))


def ellipse_distance(y: np.ndarray, x: np.ndarray, half_y: np.ndarray | float, half_x: np.ndarray | float) -> np.ndarray:
    """About how far outside (positive) or inside an upright elliptic cylinder, mm; the half axes may change with z."""
    return (np.hypot(y / half_y, x / half_x) - 1) * np.minimum(half_y, half_x)


def soft_inside(distance: np.ndarray, edge: float) -> np.ndarray:
    """1 inside, 0 outside, linear from `edge` mm inside the surface to `edge` mm outside."""
    return np.clip(0.5 - distance / (2 * edge), 0, 1)


def gap(position: np.ndarray, radii: np.ndarray, other_position: np.ndarray, other_radii: np.ndarray) -> float:
    """Gap in mm between two ellipsoids along the line between their middles (exact for spheres); negative where they overlap."""
    offset = other_position - position
    distance = float(np.linalg.norm(offset))
    direction = offset / max(distance, 1e-9)
    return distance - 1 / float(np.linalg.norm(direction / radii)) - 1 / float(np.linalg.norm(direction / other_radii))
