"""Volumes, lesions and their spread against hand values and all pairs of voxels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist

from prognosis.features.volume import bounding_box, dmax_mm, farthest, lesions, volume_ml

SPACING = (3.0, 1.0, 0.5)
small_masks = arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)))


def test_a_litre_cube():
    assert volume_ml(np.ones((10, 20, 5), bool), (10.0, 5.0, 20.0)) == pytest.approx(1000.0)


@settings(deadline=None, max_examples=40)
@given(small_masks)
def test_the_spread_is_that_of_the_farthest_pair(mask):
    points = np.argwhere(mask) * SPACING
    expected = np.nan if not len(points) else 0.0 if len(points) == 1 else pdist(points).max()
    assert dmax_mm(mask, SPACING) == pytest.approx(expected, nan_ok=True)


def test_the_spread_does_not_jump_when_lesions_touch():
    apart = np.zeros((3, 3, 20), bool)
    apart[1, 1, 2:6] = apart[1, 1, 8:14] = True
    together = apart.copy()
    together[1, 1, 6:8] = True
    assert (lesions(apart)[1], lesions(together)[1]) == (2, 1)
    assert dmax_mm(apart, SPACING) == dmax_mm(together, SPACING) == pytest.approx(11 * 0.5)


def test_farthest_works_in_blocks(monkeypatch):
    points = np.random.default_rng(0).normal(size=(50, 3))
    monkeypatch.setattr("prognosis.features.volume.PAIRS_AT_ONCE", 120)
    assert farthest(points) == pytest.approx(pdist(points).max())


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert lesions(mask)[1] == 2


@settings(deadline=None, max_examples=40)
@given(small_masks.filter(lambda mask: mask.any()), st.integers(0, 2))
def test_the_box_holds_the_mask_and_its_margin(mask, margin):
    box = bounding_box(mask, (margin,) * 3)
    assert mask[box].sum() == mask.sum()
    for axis, part in enumerate(box):
        hit = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        assert part.start == max(0, hit[0] - margin)
        assert part.stop == min(mask.shape[axis], hit[-1] + 1 + margin)
