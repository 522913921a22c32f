"""Uptake by hand: what counts to MTV, TLG and SUVpeak."""

import math

import numpy as np
import pytest

from prognosis.features.uptake import PEAK_RADIUS_MM, global_peak, isocontour, local_peak, metabolic, peak_margin, uptake
from prognosis.features.volume import lesions


def test_the_sphere_holds_one_millilitre():
    assert 4 / 3 * math.pi * PEAK_RADIUS_MM**3 == pytest.approx(1000.0)
    assert peak_margin((3.0, 1.0, 7.0)) == (2, 6, 0)


def test_the_isocontour_is_that_of_each_lesion():
    pet = np.array([[[10.0, 4.1, 4.0, 0.0, 5.0, 2.1, 2.0, 0.0]]])
    mask = np.array([[[1, 1, 1, 0, 1, 1, 1, 0]]], bool)
    active = isocontour(pet, *lesions(mask))
    assert active[0, 0].tolist() == [True, True, False, False, True, True, False, False]
    volume, glycolysis = metabolic(pet, active, (10.0, 10.0, 10.0))
    assert volume == pytest.approx(4.0)
    assert glycolysis == pytest.approx(10.0 + 4.1 + 5.0 + 2.1)


def test_glycolysis_is_mean_suv_times_volume():
    rng = np.random.default_rng(1)
    pet, active = rng.uniform(0, 9, (4, 5, 6)).astype(np.float32), rng.uniform(size=(4, 5, 6)) > 0.5
    volume, glycolysis = metabolic(pet, active, (2.0, 1.0, 1.5))
    assert glycolysis == pytest.approx(uptake(pet, active)["suvmean"] * volume)


def test_the_peak_of_a_ramp_is_by_hand():
    """Voxels of 5 mm: a sphere of 6.2 mm holds its centre and the six neighbours."""
    pet = np.zeros((5, 5, 5))
    pet[2, 2, 2], pet[2, 2, 3] = 7.0, 14.0
    mask = np.zeros(pet.shape, bool)
    mask[2, 2, 2] = True
    assert global_peak(pet, mask, (5.0, 5.0, 5.0)) == pytest.approx((7.0 + 14.0) / 7)


def test_what_lies_out_of_the_image_does_not_count():
    pet = np.full((2, 2, 2), 3.0)
    assert global_peak(pet, np.ones((2, 2, 2), bool), (5.0, 5.0, 5.0)) == pytest.approx(3.0)


def test_the_global_peak_may_lie_off_the_hottest_voxel():
    pet = np.ones((1, 3, 9))
    pet[0, 1, 1] = 10.0  # a single hot voxel
    pet[0, :, 5:8] = 9.0  # a warm block
    mask = pet > 5
    spacing = (20.0, 5.0, 5.0)
    assert local_peak(pet, mask, spacing) == pytest.approx((10 + 4 * 1) / 5)
    assert global_peak(pet, mask, spacing) == pytest.approx(9.0)


def test_an_empty_mask_has_no_uptake():
    pet, none = np.ones((2, 2, 2)), np.zeros((2, 2, 2), bool)
    assert all(math.isnan(value) for value in uptake(pet, none).values())
    assert math.isnan(global_peak(pet, none, (1.0, 1.0, 1.0)))
    assert math.isnan(local_peak(pet, none, (1.0, 1.0, 1.0)))
    assert metabolic(pet, isocontour(pet, *lesions(none)), (1.0, 1.0, 1.0)) == (0.0, 0.0)
