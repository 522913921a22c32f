import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from autoseg.evaluation.surface import hd95, surface, surface_dice, surface_distances


def box(shape, *parts):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*part) for part in parts)] = True
    return mask


CUBE = box((20, 20, 20), (5, 15), (5, 15), (5, 15))


def blob(seed, shape=(9, 10, 11)):
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5) > 0.08


def brute_force(prediction, reference, spacing, tolerance):
    """Both metrics from all pairs of elements; the elements' areas are taken as they are, their places found by looking at every cell."""

    def elements(mask):
        padded = np.pad(mask, 1)
        places = [cell for cell in np.ndindex(*(n - 1 for n in padded.shape)) if 0 < padded[tuple(slice(c, c + 2) for c in cell)].sum() < 8]
        return (np.array(places) - 0.5) * spacing

    a, b = elements(prediction), elements(reference)
    area_a, area_b = surface(prediction, spacing).areas, surface(reference, spacing).areas
    distances = cdist(a, b)
    ways = ((distances.min(1), area_a), (distances.min(0), area_b))
    dice = sum(area[d <= tolerance].sum() for d, area in ways) / (area_a.sum() + area_b.sum())
    percentiles = []
    for d, area in ways:
        candidates = [value for value in np.sort(d) if area[d <= value].sum() >= 0.95 * area.sum() - 1e-9]
        percentiles.append(candidates[0])
    return dice, max(percentiles)


def test_area_of_a_cube_is_its_faces_with_bevelled_edges():
    # faces: 6 x 9 x 9 flat cells; 12 edges of 9 cells, each a bevel of sqrt(2) / 2; 8 corners, each a triangle with sides sqrt(2) / 2
    corner = math.sqrt(3) / 4 * 0.5
    assert surface(CUBE, (1.0, 1.0, 1.0)).areas.sum() == pytest.approx(6 * 81 + 12 * 9 * math.sqrt(2) / 2 + 8 * corner)


def test_area_follows_the_spacing():
    flat = box((6, 42, 42), (2, 4), (1, 41), (1, 41))
    inner = surface(flat, (5.0, 2.0, 3.0))
    middle = (abs(inner.positions[:, 1] - 41) < 30) & (abs(inner.positions[:, 2] - 61.5) < 45)
    assert np.allclose(inner.areas[middle], 2.0 * 3.0)
    assert set(inner.positions[middle][:, 0]) == {1.5 * 5.0, 3.5 * 5.0}


def test_area_of_a_ball_comes_near_the_sphere():
    z, y, x = np.indices((31, 31, 31)) - 15
    areas = surface(z**2 + y**2 + x**2 <= 12**2, (1.0, 1.0, 1.0)).areas
    # marching cubes on a binary ball is known to overestimate by some 9 %
    assert areas.sum() == pytest.approx(4 * math.pi * 12**2, rel=0.12)


def test_a_shift_by_hand():
    moved = np.roll(CUBE, 3, axis=0)
    spacing = (2.0, 1.0, 1.0)
    assert hd95(moved, CUBE, spacing) == pytest.approx(6.0)
    assert surface_dice(moved, CUBE, spacing, 6.0) == 1
    assert surface_dice(moved, CUBE, spacing, 5.9) < 1
    assert surface_dice(CUBE, CUBE, spacing, 0.0) == 1
    assert hd95(CUBE, CUBE, spacing) == 0


def test_two_planes_apart_by_hand():
    # a slab that is one slice thicker on one side: of its two large faces one agrees; the rims are small
    thin, thick = box((12, 60, 60), (4, 6), (1, 59), (1, 59)), box((12, 60, 60), (4, 9), (1, 59), (1, 59))
    distances = surface_distances(thick, thin, (1.0, 1.0, 1.0))
    assert distances.surface_dice(1.0) == pytest.approx(0.5, abs=0.06)
    assert distances.hausdorff(95) == 3
    assert distances.hausdorff(20) == 0


def test_a_far_island_of_less_than_5_percent_does_not_move_hd95():
    prediction = CUBE.copy()
    prediction[1, 1, 1] = True
    assert hd95(prediction, CUBE, (1.0, 1.0, 1.0)) == 0
    assert surface_distances(prediction, CUBE, (1.0, 1.0, 1.0)).hausdorff(100) > 6


def test_empty_masks():
    none = np.zeros_like(CUBE)
    assert math.isnan(surface_dice(none, none, (1, 1, 1)))
    assert math.isnan(hd95(none, none, (1, 1, 1)))
    assert surface_dice(CUBE, none, (1, 1, 1)) == surface_dice(none, CUBE, (1, 1, 1)) == 0
    assert hd95(CUBE, none, (1, 1, 1)) == hd95(none, CUBE, (1, 1, 1)) == math.inf


def test_masks_at_the_border_of_the_image_are_closed():
    whole = np.ones((4, 5, 6), bool)
    inside = np.pad(whole, 3)
    assert surface(whole, (1, 2, 3)).areas.sum() == pytest.approx(surface(inside, (1, 2, 3)).areas.sum())


def test_one_slice_is_a_contour():
    # a square of 10 voxels in 2-D: 4 x 9 straight pieces and 4 bevels of half a diagonal
    square = box((1, 20, 20), (0, 1), (5, 15), (5, 15))
    assert surface(square, (7.0, 1.0, 1.0)).areas.sum() == pytest.approx(4 * 9 + 4 * math.sqrt(2) / 2)
    moved = np.roll(square, 4, axis=2)
    assert hd95(moved, square, (7.0, 1.0, 0.5)) == pytest.approx(2.0)
    # straight pieces along y at 2 mm x 1 voxel, along x at 1 mm x 2 voxels
    assert surface(square, (7.0, 2.0, 1.0)).areas.sum() == pytest.approx(2 * 9 * 2 + 2 * 9 * 1 + 4 * math.sqrt(5) / 2)


def test_one_slice_that_is_masked_in_a_volume_stays_a_volume():
    sheet = box((9, 12, 12), (4, 5), (2, 10), (2, 10))
    assert surface(sheet, (1, 1, 1)).positions.shape[1] == 3
    assert surface(sheet, (1, 1, 1)).areas.sum() > 2 * 49


@pytest.mark.parametrize("seed", range(6))
def test_against_all_pairs(seed):
    a, b = blob(seed), blob(seed + 100)
    spacing = tuple(np.random.default_rng(seed).uniform(0.6, 3.5, 3))
    expected = brute_force(a, b, spacing, tolerance=1.7)
    assert surface_dice(a, b, spacing, 1.7) == pytest.approx(expected[0], abs=1e-12)
    assert hd95(a, b, spacing) == pytest.approx(expected[1], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(arrays(bool, (4, 5, 4)), arrays(bool, (4, 5, 4)), st.sets(st.integers(0, 2)), st.floats(0.2, 4))
def test_symmetry_flips_and_scale(a, b, axes, scale):
    spacing = (3.0, 1.0, 1.5)
    if not (a.any() and b.any()):
        return
    value, distance = surface_dice(a, b, spacing, 2.0), hd95(a, b, spacing)
    assert 0 <= value <= 1
    assert surface_dice(b, a, spacing, 2.0) == pytest.approx(value)
    flipped = [np.flip(m, tuple(axes)) for m in (a, b)]
    assert surface_dice(*flipped, spacing, 2.0) == pytest.approx(value)
    assert hd95(*flipped, spacing) == pytest.approx(distance)
    assert surface_dice(a, b, [s * scale for s in spacing], 2.0 * scale) == pytest.approx(value)
    assert hd95(a, b, [s * scale for s in spacing]) == pytest.approx(distance * scale)


@pytest.mark.parametrize(
    ("spacing", "tolerance", "message"),
    [((1, 1), 2, "spacing must be 3"), ((1, 0, 1), 2, "positive"), ((1, 1, math.nan), 2, "positive"), ((1, 1, 1), -1, "tolerance_mm")],
)
def test_wrong_settings(spacing, tolerance, message):
    with pytest.raises(ValueError, match=message):
        surface_dice(CUBE, CUBE, spacing, tolerance)
