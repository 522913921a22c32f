"""Whole volumes beside scikit-image called as nnU-Net calls it, and masks beside batchgenerators."""

import numpy as np
import pytest
from batchgenerators.augmentations.utils import resize_segmentation
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.transform import resize

from autoseg.preprocessing import resample
from autoseg.preprocessing.resample import new_shape, resample_image, resample_labels, separate_axis
from planners.plan import Resampling

RULE = Resampling()
TOGETHER = (1.0, 1.0, 1.0)
SHAPES = st.tuples(*[st.tuples(st.integers(1, 18), st.integers(1, 24))] * 3)
SEEDS = st.integers(0, 10_000)


def apart(axis):
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 4.0
    return tuple(spacing)


def skimage_resize(array, shape, order):
    return resize(array.astype(float), shape, order, mode="edge", anti_aliasing=False, clip=True)


def nearest_along(array, axis, length):
    """scipy's order 0 at the new voxels' centres, along one axis."""
    where = (np.arange(length) + 0.5) * (array.shape[axis] / length) - 0.5
    index = map_coordinates(np.arange(array.shape[axis]), [where], order=0, mode="nearest")
    return np.take(array, index, axis=axis)


@given(sizes=SHAPES, seed=SEEDS, order=st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=60)
def test_volume_is_skimages_resize(sizes, seed, order):
    old, new = zip(*sizes, strict=True)
    image = np.random.default_rng(seed).normal(size=old).astype(np.float32)
    own = resample_image(image[None], new, TOGETHER, TOGETHER, Resampling(image_order=order))[0]
    np.testing.assert_allclose(own, skimage_resize(image, new, order), atol=5e-6)
    assert own.dtype == np.float32


@given(sizes=SHAPES, seed=SEEDS, axis=st.integers(0, 2))
@settings(deadline=None, max_examples=40)
def test_coarse_axis_is_nearest_and_planes_are_clipped_one_by_one(sizes, seed, axis):
    old, new = zip(*sizes, strict=True)
    image = np.random.default_rng(seed).normal(size=old).astype(np.float32)
    own = resample_image(image[None], new, apart(axis), TOGETHER, RULE)[0]
    plane_shape = [n for i, n in enumerate(new) if i != axis]
    planes = np.stack([skimage_resize(plane, plane_shape, 3) for plane in np.moveaxis(image, axis, 0)], axis=axis)
    np.testing.assert_allclose(own, nearest_along(planes, axis, new[axis]), atol=5e-6)


def test_the_spline_overshoots_and_is_clipped():
    image = np.zeros((1, 1, 1, 12), np.float32)
    image[..., 6:] = 1
    own = resample_image(image, (1, 1, 31), TOGETHER, TOGETHER, RULE)
    assert own.min() == 0
    assert own.max() == 1


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64])
def test_channels_of_any_type_and_memory_order(dtype):
    image = np.random.default_rng(0).integers(0, 200, (2, 9, 8, 7)).astype(dtype).transpose(0, 3, 2, 1)
    own = resample_image(image, (5, 11, 13), TOGETHER, TOGETHER, RULE)
    for channel, target in zip(own, image, strict=True):
        np.testing.assert_allclose(channel, skimage_resize(target, (5, 11, 13), 3), atol=2e-4)


def test_slabs_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    image, labels = rng.normal(size=(1, 20, 15, 13)).astype(np.float32), rng.integers(-1, 3, (20, 15, 13)).astype(np.int8)
    calls = [(resample_image, image), (resample_labels, labels)]
    whole = [call(array, (24, 20, 18), TOGETHER, TOGETHER, RULE) for call, array in calls]
    monkeypatch.setattr(resample, "SLAB_VALUES", 700)
    for (call, array), expected in zip(calls, whole, strict=True):
        np.testing.assert_allclose(call(array, (24, 20, 18), TOGETHER, TOGETHER, RULE), expected, atol=1e-6)


def test_same_shape_is_left_alone():
    image = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(resample_image(image, (5, 6, 7), apart(0), TOGETHER, RULE), image)


def blobs(seed, shape, labels):
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return (np.digitize(field, np.quantile(field, np.linspace(0, 1, labels + 1)[1:-1])) - 1).astype(np.int8)


@given(sizes=SHAPES, seed=SEEDS, labels=st.integers(1, 6), noisy=st.booleans())
@settings(deadline=None, max_examples=80)
@example(sizes=((1, 3), (2, 18), (8, 20)), seed=0, labels=1, noisy=True)  # a tie in the last bit, beyond the edge
def test_masks_are_batchgenerators_with_its_ties(sizes, seed, labels, noisy):
    old, new = zip(*sizes, strict=True)
    mask = np.random.default_rng(seed).integers(-1, labels, old).astype(np.int8) if noisy else blobs(seed, old, labels)
    own = resample_labels(mask, new, TOGETHER, TOGETHER, RULE)
    np.testing.assert_array_equal(own, resize_segmentation(mask, new, 1))
    assert own.dtype == mask.dtype


@pytest.mark.parametrize("new", [(6, 6, 6), (24, 24, 24), (12, 6, 24), (8, 9, 16)])
def test_masks_at_factors_full_of_ties(new):
    mask = np.random.default_rng(3).integers(-1, 5, (12, 12, 12)).astype(np.int16)
    np.testing.assert_array_equal(resample_labels(mask, new, TOGETHER, TOGETHER, RULE), resize_segmentation(mask, new, 1))


@given(sizes=SHAPES, seed=SEEDS, axis=st.integers(0, 2))
@settings(deadline=None, max_examples=30)
def test_masks_plane_by_plane(sizes, seed, axis):
    old, new = zip(*sizes, strict=True)
    mask = np.random.default_rng(seed).integers(-1, 3, old).astype(np.int8)
    own = resample_labels(mask, new, apart(axis), TOGETHER, RULE)
    plane_shape = [n for i, n in enumerate(new) if i != axis]
    planes = np.stack([resize_segmentation(plane, plane_shape, 1) for plane in np.moveaxis(mask, axis, 0)], axis=axis)
    np.testing.assert_array_equal(own, nearest_along(planes, axis, new[axis]))


def test_mask_by_nearest_neighbour():
    mask = np.arange(24).reshape(2, 3, 4).astype(np.int16)
    own = resample_labels(mask, (4, 6, 8), TOGETHER, TOGETHER, Resampling(label_order=0))
    np.testing.assert_array_equal(own, mask.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_labels_worked_out_by_hand():
    line = np.array([[[0, 0, 1, 1]]], np.int8)
    assert resample_labels(line, (1, 1, 2), TOGETHER, TOGETHER, RULE).tolist() == [[[0, 1]]]
    between = np.array([[[0, 1, 2, 0]]], np.int8)
    assert resample_labels(between, (1, 1, 2), TOGETHER, TOGETHER, RULE).tolist() == [[[1, 0]]], (
        "a tie goes to the nearest voxel, the higher"
    )
    three = np.array([[[3, 1], [1, 1]], [[2, 2], [2, 3]]], np.int8)
    own = resample_labels(three, (1, 1, 1), TOGETHER, TOGETHER, RULE)
    assert own.tolist() == [[[1]]], "1 and 2 tie, the nearest voxel is a 3 that lost: the smallest wins"


@pytest.mark.parametrize(
    ("spacing", "new_spacing", "axis"),
    [
        ((3.27, 0.98, 0.98), (1, 1, 1), 0),
        ((0.98, 3.27, 0.98), (1, 1, 1), 1),
        ((1, 1, 1), (1, 1, 3.5), 2),
        ((3, 1, 1), (1, 1, 1), None),
        ((3.01, 1, 1), (1, 1, 9), 0),
        ((4, 4, 1), (1, 1, 9), None),
        ((1, 1, 1), (2, 2, 2), None),
        ((0.24, 1.25, 1.25), (1, 1, 1), None),
    ],
)
def test_which_axis_is_resampled_apart(spacing, new_spacing, axis):
    assert separate_axis(spacing, new_spacing) == axis


def test_new_shape_rounds_half_to_even_and_keeps_one_voxel():
    assert new_shape((5, 7, 10), (1, 1, 0.5), (2, 2, 1)) == (2, 4, 5)
    assert new_shape((1, 1, 1), (1, 1, 1), (5, 2, 1)) == (1, 1, 1)
