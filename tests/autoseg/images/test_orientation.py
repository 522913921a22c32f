import itertools

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autoseg.images import (
    Geometry,
    orientation_code,
    read_image,
    read_mask,
    reorientation_for,
    reorientation_to_canonical,
    to_sitk,
    write_mask,
)

SIGNED_PERMUTATIONS = [
    np.eye(3)[list(order)] * signs for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


def stored(direction, rotation=None):
    matrix = direction if rotation is None else rotation @ direction
    return Geometry((3, 4, 5), (3.0, 1.5, 0.7), (10.0, -20.0, 30.0), tuple(matrix.ravel()))


def labels():
    return np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


def positions_by_value(array, geometry):
    """Patient position of every voxel, in the order of the voxels' values."""
    return geometry.positions(np.argwhere(np.ones_like(array)))[np.argsort(array, axis=None)]


@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS)
def test_all_48_orientations_are_made_canonical_and_come_back_exactly(direction, tmp_path):
    geometry, array = stored(direction), labels()
    turn = reorientation_to_canonical(geometry)
    turned, turned_geometry = turn.apply(array), turn.apply_geometry(geometry)
    np.testing.assert_array_equal(np.reshape(turned_geometry.direction, (3, 3)), np.eye(3))
    assert turned.shape == turned_geometry.shape
    np.testing.assert_allclose(positions_by_value(turned, turned_geometry), positions_by_value(array, geometry), atol=1e-9)
    np.testing.assert_array_equal(turn.restore(turned), array)
    assert reorientation_to_canonical(turned_geometry).is_identity
    # ITK's own filter is the oracle.
    image = SimpleITK.DICOMOrient(to_sitk(array, geometry), "LPS")
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), turned)
    np.testing.assert_allclose(turned_geometry.origin, image.GetOrigin(), atol=1e-9)
    assert orientation_code(geometry) == SimpleITK.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(geometry.direction)
    # The same through files.
    for name in ("mask.nii.gz", "mask.nrrd", "mask.mha"):
        SimpleITK.WriteImage(to_sitk(array, geometry), str(tmp_path / "stored.nii.gz"))
        source = read_image(tmp_path / "stored.nii.gz")
        turn = reorientation_to_canonical(source.geometry)
        write_mask(tmp_path / name, turn.restore(np.ascontiguousarray(turn.apply(source.array))), source.geometry)
        back = read_mask(tmp_path / name)
        np.testing.assert_array_equal(back.array, array)
        assert back.geometry == source.geometry


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SIGNED_PERMUTATIONS), st.integers(0, 2**31), st.floats(0, 40))
def test_oblique_images_keep_every_voxels_place(direction, seed, angle):
    axis = Rotation.random(random_state=seed).as_matrix()[0]
    rotation = Rotation.from_rotvec(np.radians(angle) * axis).as_matrix()
    geometry, array = stored(direction, rotation), labels()
    turn = reorientation_to_canonical(geometry)
    turned_geometry = turn.apply_geometry(geometry)
    turned = turn.apply(array)
    np.testing.assert_allclose(positions_by_value(turned, turned_geometry), positions_by_value(array, geometry), atol=1e-9)
    np.testing.assert_array_equal(turn.restore(turned), array)
    assert reorientation_to_canonical(turned_geometry).is_identity
    assert np.trace(np.reshape(turned_geometry.direction, (3, 3))) >= np.trace(rotation) - 1e-9, "no other whole-axis turn is nearer"


def test_leading_axes_are_left_alone_and_nothing_is_copied():
    turn = reorientation_to_canonical(stored(SIGNED_PERMUTATIONS[21]))
    several = np.stack([labels(), labels() + 60])
    turned = turn.apply(several)
    assert np.shares_memory(turned, several)
    np.testing.assert_array_equal(turned[1], turn.apply(several[1]))
    np.testing.assert_array_equal(turn.restore(turned), several)


def test_two_dimensional_images_stay_flat():
    geometry = Geometry((1, 4, 5), (1.0, 1.0, 0.5), (1.0, 2.0, 0.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0), 2)
    turn = reorientation_to_canonical(geometry)
    turned = turn.apply_geometry(geometry)
    assert turned.dimension == 2
    assert turned.shape == (1, 5, 4)


@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS)
def test_ras_is_what_nibabel_calls_closest_canonical(direction):
    import nibabel

    geometry = stored(direction, Rotation.from_euler("xyz", (7, -5, 11), degrees=True).as_matrix())
    matrix = np.reshape(geometry.direction, (3, 3)) * np.array(geometry.spacing[::-1])
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ matrix  # ITK's axes run to left and posterior, nibabel's to right and anterior
    theirs = nibabel.as_closest_canonical(nibabel.Nifti1Image(labels().transpose(), affine)).dataobj
    ours = reorientation_for(geometry, "ras").apply(labels())
    np.testing.assert_array_equal(ours, np.asarray(theirs).transpose())


def test_an_orientation_that_does_not_exist_is_refused():
    geometry = stored(np.eye(3))
    assert reorientation_for(geometry, "as_stored").is_identity
    assert reorientation_for(geometry, "canonical").is_identity
    with pytest.raises(ValueError, match="found 'lps'"):
        reorientation_for(geometry, "lps")
