"""The head-and-neck box on a body of simple shapes: a warm trunk, a hot brain on top of it, a hot bladder below."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.preprocessing.crop import slices
from autoseg.preprocessing.prepare import network_view, prepare
from autoseg.preprocessing.region import region_box
from planners.plan import HeadAndNeckBox, NoNormalisation

RULE = HeadAndNeckBox(channel=1)


def _scan(shape=(120, 70, 70), spacing=(5.0, 5.0, 5.0), brain=(100, 40, 30)):
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    pet = np.zeros(shape, np.float32)
    pet[10:110, 15:60, 10:60] = 0.8
    pet[(z - brain[0]) ** 2 + (y - brain[1]) ** 2 + (x - brain[2]) ** 2 < 10**2] = 8
    pet[15:27, 30:45, 25:45] = 40  # bladder: hotter, and larger than nothing in the upper quarter
    return [np.zeros(shape, np.float32), pet], spacing


def test_the_box_hangs_from_the_brain_and_is_centred_on_it():
    channels, spacing = _scan()
    box, note = region_box(channels, spacing, RULE)
    assert note == ""
    # The brain's upper plane is 109 (radius below 10), its end 110; 20 mm are 4 planes; 310, 200, 200 mm are 62, 40, 40 voxels.
    assert box == ((52, 114), (20, 60), (10, 50))


def test_the_box_stays_inside_the_image_and_keeps_its_size():
    channels, spacing = _scan(brain=(112, 60, 12))
    box, _ = region_box(channels, spacing, RULE)
    assert box == ((58, 120), (30, 70), (0, 40))


def test_a_short_scan_is_taken_whole_along_its_length():
    channels, spacing = _scan()
    box, _ = region_box([channel[70:] for channel in channels], spacing, RULE)
    assert box[0] == (0, 50)
    assert box[1:] == ((20, 60), (10, 50))


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_the_scale_of_the_pet_does_not_matter(factor):
    channels, spacing = _scan()
    assert region_box([channels[0], channels[1] * np.float32(factor)], spacing, RULE) == region_box(channels, spacing, RULE)


def test_a_finer_grid_gives_the_same_place():
    channels, spacing = _scan()
    fine = [np.repeat(channel, 2, axis=0) for channel in channels]
    coarse, _ = region_box(channels, spacing, RULE)
    box, _ = region_box(fine, (2.5, 5.0, 5.0), RULE)
    assert box[1:] == coarse[1:]
    assert np.abs(np.array(box[0]) * 2.5 - np.array(coarse[0]) * 5.0).max() <= 5.0


def test_nothing_hot_in_the_upper_part_means_the_whole_image():
    flat = np.ones((40, 20, 20), np.float32)
    box, note = region_box([flat, flat], (3.0, 3.0, 3.0), RULE)
    assert box is None
    assert "whole image" in note


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_same_box_is_prepared_in_every_axis_order_and_from_turned_images(transpose, image_of, plan_of):
    channels, spacing = _scan(spacing=(5.0, 4.0, 6.0))
    channels[0] += 1  # everything holds something: nothing more is cut
    box, _ = region_box(channels, spacing, RULE)
    expected = channels[1][slices(box)].transpose(transpose)
    order = tuple(spacing[axis] for axis in transpose)
    plan = plan_of(order, (NoNormalisation(), NoNormalisation()), transpose=transpose, region_of_interest=RULE)
    turned = [channel[::-1, :, ::-1] for channel in channels]
    for arrays, direction in ((channels, (1, 0, 0, 0, 1, 0, 0, 0, 1)), (turned, (-1, 0, 0, 0, 1, 0, 0, 0, -1))):
        done = prepare([image_of(array, spacing, direction) for array in arrays], None, plan, "c")
        np.testing.assert_array_equal(done.data[1], expected)
        mask = np.zeros(channels[1].shape, bool)
        network_view(mask, done.properties)[...] = True
        assert np.array_equal(mask if arrays is channels else mask[::-1, :, ::-1], _box_mask(box, mask.shape))


def _box_mask(box, shape):
    mask = np.zeros(shape, bool)
    mask[slices(box)] = True
    return mask
