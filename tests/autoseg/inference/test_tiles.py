"""Oracles: positions worked out by hand from the published rule, scipy's Gaussian filter of a single point, brute-force sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from autoseg.inference.tiles import axis_tiles, flips, gaussian, tile_grid, tile_starts


@pytest.mark.parametrize(
    ("length", "patch", "step", "expected"),
    [
        (110, 64, 0.5, (0, 23, 46)),  # ceil(46 / 32) + 1 = 3 tiles over 46 voxels
        (64, 64, 0.5, (0,)),
        (65, 64, 0.5, (0, 1)),
        (96, 64, 0.5, (0, 32)),
        (97, 64, 0.5, (0, 16, 33)),  # 33 / 2 = 16.5 goes to the even 16
        (512, 160, 0.5, (0, 70, 141, 211, 282, 352)),
        (512, 192, 0.5, (0, 80, 160, 240, 320)),
        (20, 10, 1.0, (0, 10)),
        (5, 1, 0.5, (0, 1, 2, 3, 4)),  # the slices of a 2-D network: each once
        (7, 3, 0.1, (0, 1, 2, 3, 4)),
        (5, 8, 0.5, (-1,)),  # 3 voxels of padding: 1 in front, 2 behind
        (1, 64, 0.5, (-31,)),
    ],
)
def test_tile_starts_by_hand(length, patch, step, expected):
    assert tile_starts(length, patch, step) == expected


@pytest.mark.parametrize("step", [0, -0.5, 1.5])
def test_step_outside_its_range_is_refused(step):
    with pytest.raises(ValueError, match="step must be above 0 and at most 1"):
        tile_starts(10, 4, step)


@given(length=st.integers(1, 300), patch=st.integers(1, 80), step=st.floats(0.05, 1))
@settings(deadline=None, max_examples=100)
def test_tiles_cover_every_voxel_in_steps_that_are_small_enough(length, patch, step):
    starts = tile_starts(length, patch, step)
    covered = np.zeros(length, int)
    for start in starts:
        covered[max(start, 0) : start + patch] += 1
    assert covered.min() >= 1
    assert max(np.diff(starts), default=0) <= np.ceil(patch * step)
    assert min(np.diff(starts), default=1) >= 1
    if length > patch:
        assert (starts[0], starts[-1]) == (0, length - patch)


@pytest.mark.parametrize("patch", [8, 15, 64])
def test_gaussian_is_scipys_filter_of_a_point(patch):
    point = np.zeros(patch)
    point[patch // 2] = 1
    filtered = gaussian_filter(point, patch / 8, mode="constant", truncate=10)
    np.testing.assert_allclose(gaussian(patch, 0.125), filtered / filtered.max(), rtol=1e-10)


@given(length=st.integers(1, 200), patch=st.integers(1, 70), step=st.floats(0.1, 1), sigma=st.floats(0.01, 1))
@settings(deadline=None, max_examples=100)
def test_weights_add_up_to_one_at_every_voxel(length, patch, step, sigma):
    tiles = axis_tiles(length, patch, step, sigma)
    total = np.zeros(length)
    for index, weights in enumerate(tiles.weights):
        image, tile = tiles.inside(index)
        total[image] += weights[tile]
    np.testing.assert_allclose(total, 1, atol=1e-5)


def test_weights_equal_the_quotient_of_gaussian_volumes():
    """Each tile's normalised weight is its Gaussian volume over the sum of all tiles' volumes, as if computed in three dimensions."""
    grid = tile_grid((9, 20, 13), (6, 8, 8), 0.5, 0.125)
    volume = gaussian(6, 0.125)[:, None, None] * gaussian(8, 0.125)[:, None] * gaussian(8, 0.125)
    total = np.zeros((9, 20, 13))
    tiles = [tile for _, row in grid.rows() for tile in row]
    assert len(tiles) == len(grid)
    for tile in tiles:
        total[tuple(axis.inside(i)[0] for axis, i in zip(grid.axes, tile, strict=True))] += volume
    tile = tiles[5]
    place = tuple(axis.inside(i)[0] for axis, i in zip(grid.axes, tile, strict=True))
    wz, wy, wx = (axis.weights[i] for axis, i in zip(grid.axes, tile, strict=True))
    np.testing.assert_allclose(wz[:, None, None] * wy[:, None] * wx, volume / total[place], rtol=1e-5)


def test_rows_ascend_along_the_slab_axis():
    rows = list(tile_grid((30, 16, 16), (8, 8, 8), 0.5, 0.125).rows())
    assert [first for first, _ in rows] == sorted(first for first, _ in rows)
    assert all(tile[0] == first for first, row in rows for tile in row)


def test_flips_are_all_subsets_with_the_plain_view_first():
    assert flips(()) == ((),)
    assert set(flips((0, 1, 2))) == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}
    assert flips((0, 2))[0] == ()
