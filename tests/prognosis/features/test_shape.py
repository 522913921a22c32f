"""Shape against closed formulae: balls, boxes, ellipsoids, and what must not change when axes are exchanged."""

import math
from collections import Counter

import numpy as np
import pytest

from prognosis.features.shape import MORPHOLOGY, axis_lengths, centre_of_mass_shift, ellipsoid_area, morphology, surface_mesh


def ellipsoid(semi_axes, spacing):
    size = [2 * math.ceil(semi / step) + 3 for semi, step in zip(semi_axes, spacing, strict=True)]
    grid = np.indices(size)
    distance = sum((((axis - (n - 1) / 2) * step) / semi) ** 2 for axis, n, step, semi in zip(grid, size, spacing, semi_axes, strict=True))
    return distance <= 1


def test_a_ball():
    radius = 12.0
    found = morphology(ellipsoid((radius,) * 3, (1.0, 1.0, 1.0)), (1.0, 1.0, 1.0))
    assert found["mesh_volume"] == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.02)
    # The mesh has steps: its area stays some per cent above the ball's however fine the grid.
    assert found["surface_area"] == pytest.approx(4 * math.pi * radius**2, rel=0.1)
    assert 0.9 < found["sphericity"] < 1
    assert found["maximum_diameter"] == pytest.approx(2 * radius, abs=1.5)
    assert found["elongation"] == pytest.approx(1, abs=1e-6)
    # A solid ball's variance along an axis is r^2 / 5.
    assert found["major_axis"] == pytest.approx(4 * radius / math.sqrt(5), rel=0.02)


def test_axes_of_an_ellipsoid_on_an_anisotropic_grid():
    spacing = (2.0, 0.5, 1.0)
    lengths = axis_lengths(ellipsoid((8.0, 6.0, 14.0), spacing), spacing)
    assert lengths == pytest.approx([4 * semi / math.sqrt(5) for semi in (14.0, 8.0, 6.0)], rel=0.05)


def test_one_voxel_has_a_mesh_and_no_axes():
    """The mesh of a voxel is an octahedron through the middles of the ways to its neighbours."""
    found = morphology(np.ones((1, 1, 1), bool), (2.0, 2.0, 2.0))
    assert found["mesh_volume"] == pytest.approx(4 / 3)
    assert found["surface_area"] == pytest.approx(8 * math.sqrt(3) / 4 * 2)
    assert found["major_axis"] == 0
    assert math.isnan(found["elongation"])
    assert math.isnan(found["volume_density_ellipsoid"])


def test_a_flat_mask_has_no_least_axis():
    found = morphology(np.ones((1, 5, 7), bool), (1.0, 1.0, 1.0))
    assert found["least_axis"] == 0
    assert found["flatness"] == 0
    assert found["mesh_volume"] > 0


def test_an_empty_mask_is_nan_throughout():
    found = morphology(np.zeros((3, 3, 3), bool), (1.0, 1.0, 1.0))
    assert list(found) == list(MORPHOLOGY)
    assert np.isnan(list(found.values())).all()


def test_exchanging_axes_changes_nothing():
    rng = np.random.default_rng(3)
    mask = rng.uniform(size=(6, 7, 8)) > 0.4
    spacing = np.array([3.0, 1.0, 0.7])
    before = morphology(mask, spacing)
    after = morphology(mask.transpose(2, 0, 1), spacing[[2, 0, 1]])
    for name in ("mesh_volume", "maximum_diameter", "major_axis", "flatness", "volume_density_box", "volume_density_hull"):
        assert after[name] == pytest.approx(before[name], rel=1e-2), name


def test_the_mesh_is_closed():
    mask = np.random.default_rng(0).uniform(size=(6, 6, 6)) > 0.5
    faces = surface_mesh(mask, (1.0, 1.0, 1.0)).faces
    edges = Counter(tuple(face[pair].tolist()) for face in faces for pair in ([0, 1], [1, 2], [2, 0]))
    assert all(edges[b, a] == count for (a, b), count in edges.items())


def test_the_manuals_ellipsoid_area_of_a_ball_and_where_axes_are_equal():
    assert ellipsoid_area(3, 3, 3) == pytest.approx(4 * math.pi * 9)
    # Two equal axes leave the series' Legendre argument without a value; its sum is finite all the same.
    assert ellipsoid_area(3, 3, 2) == pytest.approx(ellipsoid_area(3, 3 - 1e-9, 2), rel=1e-6)


def test_the_heavier_end_pulls_the_centre():
    mask = np.ones((1, 1, 3), bool)
    assert centre_of_mass_shift(mask, np.array([[[0.0, 0.0, 5.0]]]), (1.0, 1.0, 2.0)) == pytest.approx(2.0)
    assert math.isnan(centre_of_mass_shift(mask, np.zeros((1, 1, 3)), (1.0, 1.0, 2.0)))
