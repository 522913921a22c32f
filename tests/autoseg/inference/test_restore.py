"""Streaming restoration against scikit-image and scipy on whole logits in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from skimage.transform import resize

from autoseg.inference.restore import (
    axis_taps,
    certain_background,
    label_dtype,
    logits_taps,
    paint_regions,
    resample_planes,
    restore_labels,
)
from planners.plan import Resampling

RULE = Resampling()


def whole(logits, shape, coarse=None):
    """Each class resized at once; a coarse axis plane by plane and then by nearest neighbour, as nnU-Net's rule says."""
    result = []
    for channel in logits.astype(np.float64):
        if coarse is None:
            result.append(resize(channel, shape, order=1, mode="edge", anti_aliasing=False, clip=False))
            continue
        planes = np.moveaxis(channel, coarse, 0)
        in_plane = [n for axis, n in enumerate(shape) if axis != coarse]
        planes = np.stack([resize(p, in_plane, order=1, mode="edge", anti_aliasing=False, clip=False) for p in planes])
        old, new = len(planes), shape[coarse]
        at = old / new * (np.arange(new) + 0.5) - 0.5
        grid = np.meshgrid(at, *(np.arange(n) for n in in_plane), indexing="ij")
        result.append(np.moveaxis(map_coordinates(planes, grid, order=0, mode="nearest"), 0, coarse))
    return np.stack(result)


def blocks_of(logits, sizes):
    """Logits cut along the first axis into blocks that lie in one overwritten buffer, as the sliding window yields them."""
    buffer = torch.empty((logits.shape[0], max(sizes), *logits.shape[2:]))
    start = 0
    for size in sizes:
        buffer[:, :size] = torch.from_numpy(logits[:, start : start + size])
        yield start, buffer[:, :size]
        buffer.fill_(float("nan"))
        start += size


@st.composite
def cuts(draw, total):
    sizes = []
    while sum(sizes) < total:
        sizes.append(draw(st.integers(1, total - sum(sizes))))
    return sizes


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_stream_equals_resizing_everything_at_once(data):
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    new_shape = data.draw(st.tuples(*[st.integers(1, 14)] * 3))
    spacing = data.draw(st.sampled_from([(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 1.0, 4.0), (1.0, 3.5, 3.5), (1.0, 2.0, 4.0)]))
    expected_coarse = {(5.0, 1.0, 1.0): 0, (1.0, 1.0, 4.0): 2, (1.0, 2.0, 4.0): 2}.get(spacing)
    logits = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(3, *shape)).astype(np.float32)
    taps = logits_taps(shape, new_shape, spacing, (1.0, 1.0, 1.0), RULE)
    found = np.stack([p.clone() for p in resample_planes(blocks_of(logits, data.draw(cuts(shape[0]))), taps)], axis=1)
    expected = whole(logits, new_shape, None if shape == new_shape else expected_coarse)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    mask = np.full(new_shape, 255, np.uint8)
    restore_labels(blocks_of(logits, [shape[0]]), taps, mask)
    first, second = np.sort(expected, axis=0)[-1], np.sort(expected, axis=0)[-2]
    clear = first - second > 1e-5  # a tie may fall either way in the last bit
    assert np.array_equal(mask[clear], expected.argmax(0)[clear])
    assert clear.mean() > 0.99 or clear.size < 500


def test_the_target_spacing_decides_where_the_source_does_not():
    taps = logits_taps((4, 6, 6), (8, 6, 6), (1.0, 1.0, 1.0), (4.0, 1.0, 1.0), RULE)
    assert not taps[0].weight.any()
    assert logits_taps((4, 6, 6), (8, 6, 6), (1.0, 1.0, 1.0), (2.0, 1.0, 1.0), RULE)[0].weight.any()


def test_linear_taps_by_hand():
    taps = axis_taps(2, 4, 1)  # centres at -0.25, 0.25, 0.75, 1.25 of the input
    values = np.array([10.0, 20.0])
    np.testing.assert_allclose((1 - taps.weight) * values[taps.low] + taps.weight * values[taps.high], [10, 12.5, 17.5, 20])
    assert list(axis_taps(2, 4, 0).low) == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="order must be 0 or 1"):
        axis_taps(2, 4, 3)


def test_labels_go_through_a_permuted_view_and_a_table_of_values():
    logits = np.zeros((3, 2, 3, 4), np.float32)
    logits[1, 0], logits[2, 1, 2, 3] = 1, 1
    stored = np.zeros((4, 2, 3), np.uint8)
    restore_labels(blocks_of(logits, [1, 1]), [axis_taps(n, n, 1) for n in (2, 3, 4)], stored.transpose(1, 2, 0), values=(0, 5, 9))
    assert (stored[:, 0] == 5).all()
    assert stored[3, 1, 2] == 9
    assert (stored == 9).sum() == 1


def test_probabilities_are_the_softmax_of_the_resampled_logits():
    logits = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    probabilities, mask = np.zeros((3, 6, 5, 9), np.float32), np.zeros((6, 5, 9), np.uint8)
    restore_labels(blocks_of(logits, [3, 1]), [axis_taps(n, m, 1) for n, m in ((4, 6), (5, 5), (6, 9))], mask, probabilities=probabilities)
    expected = np.exp(whole(logits, (6, 5, 9)))
    np.testing.assert_allclose(probabilities, expected / expected.sum(0), atol=1e-6)
    assert np.array_equal(mask, probabilities.argmax(0))


@pytest.mark.parametrize(("values", "expected"), [([0, 1], "uint8"), ([0, 255], "uint8"), ([0, 256], "uint16")])
def test_the_mask_type_is_the_smallest_that_fits(values, expected):
    assert label_dtype(values) == expected


@pytest.mark.parametrize("values", [[-1, 0], [0, 70000]])
def test_label_values_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match="0 to 65535"):
        label_dtype(values)


def test_regions_are_painted_in_their_order():
    # whole, core, enhancing at six voxels; 0 is not above one half
    logits = torch.tensor(
        [
            [-1.0, 2.0, 2.0, 2.0, -1.0, 0.0],
            [-1.0, -1.0, 0.1, 3.0, 5.0, 0.0],
            [-1.0, -1.0, -1.0, 0.2, -1.0, 0.0],
        ]
    )
    assert paint_regions(logits, (1, 2, 3)).tolist() == [0, 1, 2, 3, 2, 0]
    # KiTS: kidney 1, masses 3, tumour 2
    assert paint_regions(logits, (1, 3, 2)).tolist() == [0, 1, 3, 2, 3, 0]


def test_streamed_regions_equal_thresholds_of_whole_probabilities():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 6, 5, 4)).astype(np.float32)
    shape = (9, 7, 4)
    mask, probabilities = np.zeros(shape, np.uint8), np.zeros((2, *shape), np.float32)
    taps = logits_taps(logits.shape[1:], shape, (1.0,) * 3, (1.0,) * 3, RULE)
    restore_labels(blocks_of(logits, [2, 3, 1]), taps, mask, values=(1, 2), regions=True, probabilities=probabilities)
    expected = 1 / (1 + np.exp(-whole(logits, shape)))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    painted = np.where(expected[1] > 0.5, 2, np.where(expected[0] > 0.5, 1, 0))
    sure = (abs(expected - 0.5) > 1e-5).all(0)
    np.testing.assert_array_equal(mask[sure], painted[sure])
    assert set(np.unique(mask)) == {0, 1, 2}


def test_background_for_sure():
    labels, regions = np.full((3, 2), 0.5), np.full((3, 2), 0.5)
    certain_background(labels, regions=False)
    certain_background(regions, regions=True)
    assert labels.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert not regions.any()
