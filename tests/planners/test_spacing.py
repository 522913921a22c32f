from __future__ import annotations

import numpy as np
import pytest

from planners.spacing import median_resampled_shape, network_axes, resampled_shape, target_spacing


def test_the_median_of_each_axis():
    found = target_spacing([(1, 2, 3), (2, 2, 3), (3, 5, 4)], [(100, 100, 100)] * 3)
    assert found.spacing == (2, 2, 3)
    assert "median of 3 cases" in found.reason


def test_a_coarse_axis_takes_its_tenth_percentile():
    thick = [4.0, 5.0, 5.0, 6.0, 8.0]
    found = target_spacing([(z, 0.5, 0.5) for z in thick], [(20, 300, 300)] * 5)
    assert found.spacing == (np.percentile(thick, 10), 0.5, 0.5)
    assert "axis 0 is coarse" in found.reason


def test_a_coarse_axis_stays_the_coarsest():
    found = target_spacing([(z, 1.0, 1.0) for z in (0.5, 4.0, 4.0, 4.0)], [(20, 300, 300)] * 4)
    assert found.spacing == pytest.approx((0.5 + 0.3 * 3.5, 1.0, 1.0))
    found = target_spacing([(z, 1.0, 1.0) for z in (0.5, 0.5, 4.0, 4.0, 4.0)], [(20, 300, 300)] * 5)
    assert found.spacing == (1.0 + 1e-5, 1.0, 1.0)
    assert found.reason.endswith(
        "the 10th percentile of its spacings, 0.5 mm, and no finer than the others, so that it stays the coarse one"
    )


@pytest.mark.parametrize(
    ("z", "slices"),
    [(3.0, 20), (5.0, 100)],
    ids=["not more than three times coarser", "not more than three times shorter"],
)
def test_an_axis_is_coarse_only_by_both_rules(z, slices):
    assert target_spacing([(z, 1, 1), (2 * z, 1, 1), (z, 1, 1)], [(slices, 300, 300)] * 3).spacing == (z, 1, 1)


@pytest.mark.parametrize(("spacings", "shapes"), [([], []), ([(1, 1, 1)], [])])
def test_no_cases(spacings, shapes):
    with pytest.raises(ValueError, match="one spacing and one shape a case"):
        target_spacing(spacings, shapes)


@pytest.mark.parametrize(
    ("spacing", "shape", "expected"),
    [
        ((1, 1, 1), (9, 9, 9), (0, 1, 2)),
        ((1, 3, 1), (9, 9, 9), (1, 0, 2)),
        ((1, 1, 3), (9, 9, 9), (2, 0, 1)),
        ((1, 2, 2), (9, 9, 9), (1, 0, 2)),
        ((0.2, 1, 1), (1, 64, 64), (0, 1, 2)),
        ((0.2, 1, 0.3), (64, 64, 1), (2, 0, 1)),
    ],
)
def test_the_coarsest_axis_comes_first_and_slices_before_it(spacing, shape, expected):
    transpose, reason = network_axes(spacing, shape)
    assert transpose == expected
    assert f"array axis {expected[0]}" in reason


def test_shapes_scale_and_round_halves_to_even():
    assert resampled_shape((10, 5, 7), (1, 1, 1), (2, 2, 2)) == (5, 2, 4)
    assert median_resampled_shape([(10, 10, 10), (20, 20, 21)], [(1, 1, 1), (1, 2, 1)], (1, 1, 1)) == (15, 25, 15.5)
