"""The non-zero region beside scipy's fill and a plain search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes

from autoseg.preprocessing.crop import bounding_box, nonzero_box, nonzero_mask, slices

SHAPES = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8))


def random_channels(shape, seed, share, count=2):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=shape) * (rng.random(shape) < share)).astype(np.float32) for _ in range(count)]


@given(shape=SHAPES, seed=st.integers(0, 9999), share=st.sampled_from([0.0, 0.02, 0.3, 0.7, 0.98]))
@settings(deadline=None, max_examples=150)
def test_box_and_mask(shape, seed, share):
    channels = random_channels(shape, seed, share)
    filled = binary_fill_holes(np.logical_or(*[channel != 0 for channel in channels]))
    where = np.argwhere(filled)
    box = nonzero_box(channels)
    if len(where):
        assert box == tuple(zip(where.min(axis=0), where.max(axis=0) + 1, strict=True))
    else:
        assert box == tuple((0, n) for n in shape)
    mask = nonzero_mask([channel[slices(box)] for channel in channels])
    np.testing.assert_array_equal(np.ones_like(filled[slices(box)]) if mask is None else mask, filled[slices(box)])


def test_nothing_is_no_box():
    assert bounding_box(np.zeros((3, 4, 5))) is None
    assert nonzero_box([np.zeros((3, 4, 5))]) == ((0, 3), (0, 4), (0, 5))
    assert not nonzero_mask([np.zeros((3, 4, 5))]).any()


@pytest.mark.parametrize("voxel", [(0, 0, 0), (2, 3, 4), (1, 3, 0)])
def test_one_voxel(voxel):
    image = np.zeros((3, 4, 5), np.int16)
    image[voxel] = -7
    assert bounding_box(image) == tuple((i, i + 1) for i in voxel)


def test_a_closed_shell_is_filled_and_an_open_one_is_not():
    image = np.zeros((7, 7, 7))
    image[1:6, 1:6, 1:6] = 1
    image[2:5, 2:5, 2:5] = 0
    box = nonzero_box([image])
    assert box == ((1, 6),) * 3
    assert nonzero_mask([image[slices(box)]]) is None
    image[3, 3, 5] = 0
    mask = nonzero_mask([image[slices(box)]])
    assert (~mask).sum() == 27 + 1
