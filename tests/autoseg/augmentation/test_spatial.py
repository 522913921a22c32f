import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.augmentation import spatial
from autoseg.augmentation.labels import sample_labels
from autoseg.augmentation.spatial import SpatialParameters
from planners.plan import Spatial

CASES = {
    "rotated": SpatialParameters((20.0, -13.0, 8.0), 1.0),
    "rotated, far out": SpatialParameters((30.0, 30.0, -30.0), 1.4),
    "rotated, closer": SpatialParameters((-25.0, 4.0, 12.0), 0.7),
    "closer": SpatialParameters((0.0, 0.0, 0.0), 0.73),
    "further out": SpatialParameters((0.0, 0.0, 0.0), 1.37),
    "in plane": SpatialParameters((77.0,), 1.2),
    "in plane, only scaled": SpatialParameters((0.0,), 0.817),
}
CROP, PATCH = (20, 28, 24), (14, 20, 18)


def blobs(shape, seed=0, labels=4):
    """int16 labels in blobs, with some -1."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return (np.digitize(smooth, np.quantile(smooth, np.linspace(0, 1, labels + 1)[1:-1])) - 1).astype(np.int16)


def oracle_map(parameters, crop, patch):
    affine = spatial.matrix(parameters)
    return affine, (np.array(crop) - 1) / 2 - affine @ ((np.array(patch) - 1) / 2)


def oracle_labels(labels, affine, offset, shape):
    """Linear interpolation of all one-hot maps, -1 outside, and the first of the largest."""
    padded = np.pad(labels, 1, constant_values=-1)
    values = np.unique(padded)
    maps = [ndimage.affine_transform((padded == v).astype(float), affine, offset + 1, shape, order=1, mode="grid-constant") for v in values]
    maps[0] += 1 - sum(maps)
    return values[np.argmax(np.round(maps, 12), axis=0)]


@pytest.mark.parametrize("name", CASES)
def test_images_are_scipys_linear_interpolation_with_zeros_outside(name):
    data = np.random.default_rng(1).normal(size=(2, *CROP)).astype(np.float32)
    labels = np.zeros((1, *CROP), np.int16)
    found, _ = spatial.apply(torch.from_numpy(data), torch.from_numpy(labels), CASES[name], PATCH)
    affine, offset = oracle_map(CASES[name], CROP, PATCH)
    for channel, before in zip(found.numpy(), data, strict=True):
        expected = ndimage.affine_transform(before.astype(float), affine, offset, PATCH, order=1, mode="grid-constant")
        np.testing.assert_allclose(channel, expected, atol=5e-5)


@pytest.mark.parametrize("name", CASES)
def test_labels_are_the_largest_interpolated_one_hot_map(name):
    labels = blobs(CROP)
    found = spatial.apply(torch.zeros(1, *CROP), torch.from_numpy(labels[None]), CASES[name], PATCH)[1][0].numpy()
    expected = oracle_labels(labels, *oracle_map(CASES[name], CROP, PATCH), PATCH)
    assert len(np.unique(expected)) > 3
    assert np.array_equal(found, expected)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3), st.floats(0.5, 2), st.tuples(*[st.integers(1, 9)] * 3), st.integers(0, 1000), st.integers(1, 30)
)
def test_labels_of_any_affine_map_of_any_shape(degrees, scale, shape, seed, count):
    labels = np.random.default_rng(seed).integers(-1, count, shape).astype(np.int16)
    affine, offset = oracle_map(SpatialParameters(degrees, scale), shape, (7, 6, 5))
    offset = offset + 1e-3  # away from exact ties, which rounding decides
    found = sample_labels(torch.from_numpy(labels), affine, offset, (7, 6, 5)).numpy()
    assert set(np.unique(found)) <= {-1, *np.unique(labels)}
    assert (found == oracle_labels(labels, affine, offset, (7, 6, 5))).mean() > 0.99


def test_labels_larger_than_a_tile():
    labels = blobs((40, 70, 70))
    affine, offset = oracle_map(CASES["rotated"], (40, 70, 70), (36, 50, 66))
    found = sample_labels(torch.from_numpy(labels), affine, offset, (36, 50, 66)).numpy()
    assert np.array_equal(found, oracle_labels(labels, affine, offset, (36, 50, 66)))


def test_equal_weights_go_to_the_lowest_label():
    labels = torch.tensor([[[2, 1], [2, 1]], [[2, 1], [2, 1]]], dtype=torch.int16)
    found = sample_labels(labels, np.eye(3), np.array([0.5, 0.5, 0.5]), (1, 1, 1))
    assert found.tolist() == [[[1]]]


def test_image_and_labels_move_together():
    labels = (blobs(CROP) > 0).astype(np.int16)
    for parameters in CASES.values():
        images = np.stack([labels, np.ones_like(labels)]).astype(np.float32)
        (image, cover), (mask,) = spatial.apply(torch.from_numpy(images), torch.from_numpy(labels[None]), parameters, PATCH)
        # at the border -1 takes part; where 0 and 1 weigh the same, rounding decides
        sure = (cover > 1 - 1e-4) & ((image - 0.5).abs() > 1e-3)
        assert sure.float().mean() > 0.3
        assert torch.equal((image > 0.5)[sure], (mask == 1)[sure])


def test_two_dimensions_are_one_slice_of_three():
    data = np.random.default_rng(2).normal(size=(2, 30, 26)).astype(np.float32)
    labels = blobs((1, 30, 26))
    image, mask = spatial.apply(torch.from_numpy(data), torch.from_numpy(labels), SpatialParameters((50.0,), 1.1), (20, 18))
    angle = np.radians(50)
    affine = 1.1 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    offset = np.array([14.5, 12.5]) - affine @ np.array([9.5, 8.5])
    for channel, before in zip(image.numpy(), data, strict=True):
        np.testing.assert_allclose(
            channel, ndimage.affine_transform(before, affine, offset, (20, 18), order=1, mode="grid-constant"), atol=5e-5
        )
    assert mask.shape == (1, 20, 18)
    for k in range(3):  # slice by slice in a volume: the same
        volume, volume_mask = spatial.apply(
            torch.from_numpy(np.repeat(data[:, None], 3, 1)),
            torch.from_numpy(np.repeat(labels[:, None], 3, 1)),
            SpatialParameters((50.0,), 1.1),
            (3, 20, 18),
        )
        torch.testing.assert_close(volume[:, k], image)
        assert torch.equal(volume_mask[:, k], mask)


def test_a_quarter_turn_is_rot90():
    data = np.random.default_rng(3).normal(size=(1, 5, 9, 9)).astype(np.float32)
    found, _ = spatial.apply(torch.from_numpy(data), torch.zeros(1, 5, 9, 9, dtype=torch.int16), SpatialParameters((90.0,)), (5, 9, 9))
    np.testing.assert_allclose(found.numpy(), np.rot90(data, 1, (2, 3)), atol=1e-4)


def test_the_largest_read_of_a_cube_is_nnunets():
    # 128 (cos 30 + sin 30) / 0.85 = 205.7, printed by nnU-Net as 205; even here, as the patch is
    assert spatial.largest_read_size(Spatial(), (128, 128, 128)) == (206, 206, 206)
    assert spatial.largest_read_size(Spatial(in_plane=True, rotation_degrees=(-180, 180)), (20, 320, 256)) == (20, 376, 376)
    assert spatial.largest_read_size(Spatial(rotation_degrees=(-180, 180)), (320, 256)) == (376, 376)
    assert spatial.largest_read_size(Spatial(rotation_probability=0, scaling_probability=0), (40, 56, 40)) == (40, 56, 40)
    assert spatial.largest_read_size(None, (40, 56, 40)) == (40, 56, 40)


@settings(deadline=None, max_examples=25)
@given(st.tuples(*[st.floats(-30, 30)] * 3), st.floats(0.7, 1.4), st.tuples(*[st.integers(2, 12)] * 3), st.integers(0, 99))
def test_reading_no_more_than_needed_changes_nothing(degrees, scale, patch, seed):
    parameters = SpatialParameters(degrees, scale)
    limit = spatial.largest_read_size(Spatial(), patch)
    size = spatial.read_size(parameters, patch, tuple(n + 40 for n in limit))
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(1, *(n + 6 for n in size))).astype(np.float32)
    labels = rng.integers(-1, 3, data.shape).astype(np.int16)
    inner = (slice(None), *(slice(3, -3),) * 3)
    wide = spatial.apply(torch.from_numpy(data), torch.from_numpy(labels), parameters, patch)
    tight = spatial.apply(torch.from_numpy(data[inner].copy()), torch.from_numpy(labels[inner].copy()), parameters, patch)
    torch.testing.assert_close(tight[0], wide[0], atol=1e-4, rtol=0)
    assert (tight[1] == wide[1]).float().mean() > 0.99  # exact ties may fall either way
    assert all(n <= m for n, m in zip(spatial.read_size(parameters, patch, limit), limit, strict=True))
