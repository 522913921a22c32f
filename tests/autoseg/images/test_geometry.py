import logging
import math

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autoseg.errors import GeometryError
from autoseg.images import Geometry, check_same_grid, corner_displacement
from autoseg.images.geometry import nearest_orthonormal, skew

OBLIQUE = tuple(Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix().ravel())


def geometry(**changes):
    return Geometry(**{"shape": (10, 20, 30), "spacing": (3.0, 1.0, 0.5), "origin": (-5.0, 6.0, 7.0), "direction": OBLIQUE, **changes})


def test_positions_are_those_of_itk():
    image = SimpleITK.Image(30, 20, 10, SimpleITK.sitkUInt8)
    image.SetSpacing((0.5, 1.0, 3.0))
    image.SetOrigin((-5.0, 6.0, 7.0))
    image.SetDirection(OBLIQUE)
    voxels = np.array([(0, 0, 0), (9, 0, 0), (1, 2, 3), (9.5, 3.25, -4)])
    expected = [image.TransformContinuousIndexToPhysicalPoint(voxel[::-1].tolist()) for voxel in voxels]
    np.testing.assert_allclose(geometry().positions(voxels), expected, atol=1e-12)


def test_displacement_by_hand():
    a = geometry(direction=np.eye(3))
    assert corner_displacement(a, a) == 0
    # Moved by 0.25 mm along x, whose voxels measure 0.5 mm.
    assert corner_displacement(a, geometry(direction=np.eye(3), origin=(-4.75, 6.0, 7.0))) == pytest.approx(0.5)
    # 1 % longer steps along z: the far outer corner, 9.5 steps from the first centre, moves by 0.095 steps.
    assert corner_displacement(a, geometry(direction=np.eye(3), spacing=(3.03, 1.0, 0.5))) == pytest.approx(0.095)
    # A single slice: half a voxel lies on each side of its centre.
    one, thick = (Geometry((1, 4, 4), (spacing, 1.0, 1.0)) for spacing in (2.0, 4.0))
    assert corner_displacement(one, thick) == pytest.approx(0.5)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.floats(-0.4, 0.4)] * 3), st.floats(0.2, 5.0))
def test_displacement_of_a_shift_is_its_length_in_voxels(shift, scale):
    a = geometry(spacing=(3 * scale, scale, 0.5 * scale))
    moved = geometry(spacing=a.spacing, origin=tuple(a.positions(shift)))
    assert corner_displacement(a, moved) == pytest.approx(math.hypot(*shift), abs=1e-9)


def test_the_same_grid_passes_in_silence(caplog):
    with caplog.at_level(logging.WARNING):
        assert check_same_grid(geometry(), geometry(origin=(-5.0004, 6.0, 7.0))) is None
    assert not caplog.records


def test_small_displacement_is_noted_and_logged(caplog):
    with caplog.at_level(logging.WARNING):
        note = check_same_grid(geometry(), geometry(origin=(-5.01, 6.0, 7.0)), case="CHUM-014", names=("CT", "PT"))
    assert "case CHUM-014" in note
    assert "differ by 0.017 voxels" in note
    assert note in caplog.text


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"origin": (-5.1, 6.0, 7.0)}, "voxels apart (accepted: 0.1)"),
        ({"spacing": (3.0, 1.1, 0.5)}, "voxels apart"),
        ({"direction": tuple(np.eye(3).ravel())}, "voxels apart"),
        ({"shape": (11, 20, 30)}, "shapes differ"),
    ],
)
def test_other_grids_are_an_error_with_the_numbers_of_both(change, part):
    with pytest.raises(GeometryError) as caught:
        check_same_grid(geometry(), geometry(**change), case="CHUM-014", names=("CT", "PT"))
    message = str(caught.value)
    for expected in ("case CHUM-014: PT and CT do not share a grid", part, "CT is 10x20x30 voxels of (3, 1, 0.5) mm", "Resample"):
        assert expected in message


def test_tolerance_is_the_callers():
    moved = geometry(origin=(-5.1, 6.0, 7.0))
    assert check_same_grid(geometry(), moved, tolerance=0.3) is not None
    with pytest.raises(GeometryError):
        check_same_grid(geometry(), geometry(origin=(-5.01, 6.0, 7.0)), tolerance=0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"spacing": (0.0, 1.0, 1.0)},
        {"spacing": (math.nan, 1.0, 1.0)},
        {"shape": (0, 1, 1)},
        {"shape": (1, 1)},
        {"origin": (math.inf, 0, 0)},
        {"direction": (1.0,)},
        {"dimension": 4},
        {"dimension": 2},
    ],
)
def test_impossible_grids_are_refused(change):
    with pytest.raises(GeometryError):
        geometry(**change)


def test_nearest_orthonormal_is_the_rotation_of_a_polar_decomposition():
    assert skew(OBLIQUE) < 1e-15
    sheared = np.reshape(OBLIQUE, (3, 3)) @ np.array([[1, 2e-4, 0], [2e-4, 1, 0], [0, 0, 1]])  # rotation times symmetric: polar form
    assert skew(sheared.ravel()) == pytest.approx(4e-4)
    np.testing.assert_allclose(nearest_orthonormal(sheared.ravel()), OBLIQUE, atol=1e-12)
    mirrored = np.reshape(OBLIQUE, (3, 3)) * (1, 1, -1)
    np.testing.assert_allclose(nearest_orthonormal(mirrored.ravel()), mirrored.ravel(), atol=1e-12)
