"""One-axis matrices beside scipy's own resampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autoseg.preprocessing.axes import axis_bands, axis_matrix, centres, linear_axis, nearest_index

SIZES = st.tuples(st.integers(1, 70), st.integers(1, 90))


@pytest.mark.parametrize("order", [1, 3])
@given(sizes=SIZES, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_matrix_is_scipys_zoom(order, sizes, seed):
    n_in, n_out = sizes
    values = np.random.default_rng(seed).normal(size=n_in)
    zoomed = ndimage.zoom(values, n_out / n_in, order=order, mode="nearest", grid_mode=True)
    assert len(zoomed) == n_out
    np.testing.assert_allclose(axis_matrix(n_in, n_out, order) @ values, zoomed, atol=3e-6)


@given(sizes=SIZES)
@settings(deadline=None, max_examples=60)
def test_nearest_is_scipys_order_0(sizes):
    n_in, n_out = sizes
    expected = ndimage.map_coordinates(np.arange(n_in), [centres(n_in, n_out)], order=0, mode="nearest")
    np.testing.assert_array_equal(nearest_index(n_in, n_out), expected)
    np.testing.assert_array_equal(axis_matrix(n_in, n_out, 0).argmax(axis=1), expected)


def test_values_worked_out_by_hand():
    np.testing.assert_allclose(axis_matrix(2, 4, 1) @ [0, 1], [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(axis_matrix(4, 2, 1) @ [0, 2, 4, 8], [1, 6])
    assert nearest_index(2, 4).tolist() == [0, 0, 1, 1]
    assert nearest_index(4, 2).tolist() == [1, 3], "a tie goes to the higher voxel"


@given(sizes=SIZES, order=st.sampled_from([0, 1, 3]))
@settings(deadline=None, max_examples=40)
def test_a_constant_stays_constant(sizes, order):
    np.testing.assert_allclose(axis_matrix(*sizes, order).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_same_length_is_the_identity(order):
    np.testing.assert_allclose(axis_matrix(37, 37, order), np.eye(37), atol=1e-7)


def test_linear_axis_is_the_linear_matrix():
    lower, upper, weight = linear_axis(13, 29)
    matrix = np.zeros((29, 13))
    for i in range(29):
        matrix[i, lower[i]] += 1 - weight[i]
        matrix[i, upper[i]] += weight[i]
    np.testing.assert_allclose(axis_matrix(13, 29, 1), matrix, atol=1e-7)
    assert (lower[weight == 0] == upper[weight == 0]).all()


@pytest.mark.parametrize(("n_in", "n_out"), [(100, 37), (33, 200), (5, 5), (1, 9), (70, 1)])
@pytest.mark.parametrize("axis", [-1, -2])
def test_bands_are_the_dense_matrix(n_in, n_out, axis):
    array = np.random.default_rng(0).normal(size=(3, n_in, 6) if axis == -2 else (3, 6, n_in)).astype(np.float32)
    dense = np.moveaxis(np.moveaxis(array, axis, -1) @ axis_matrix(n_in, n_out, 3).T, -1, axis)
    np.testing.assert_allclose(axis_bands(n_in, n_out, 3).apply(array, axis), dense, atol=2e-6)


def test_long_axes_are_multiplied_in_narrow_blocks():
    blocks = axis_bands(512, 1024, 3).blocks
    assert max(block.weights.shape[1] for block in blocks) < 64
    assert sum(block.out_stop - block.out_start for block in blocks) == 1024


def test_shared_matrices_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        axis_matrix(4, 5, 3)[0, 0] = 1


@pytest.mark.parametrize(("arguments", "message"), [((4, 5, 2), "found 2"), ((0, 5, 3), "found 0 and 5"), ((4, 0, 1), "found 4 and 0")])
def test_what_is_no_axis_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        axis_matrix(*arguments)
