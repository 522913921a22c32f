"""One case from arrays: values by hand, what has no value and why, and what must not matter."""

import math

import numpy as np
import pytest
from segmented import SPACING, head

from prognosis.features.case import FEATURES, case_features, measure
from prognosis.features.feature import EMPTY_MASK, FLAGS, NO_CT, NO_NODES, NO_PET, NO_PRIMARY, PET_NOT_SUV

VOXEL_ML = 3.0 * 2.0 * 2.0 / 1000


def test_values_by_hand():
    ct, pet, mask = head(0, nodes=2)
    found = case_features(ct, pet, mask, SPACING)
    assert found["volume_gtvp_ml"] == pytest.approx(48 * VOXEL_ML)
    assert found["volume_gtvn_ml"] == pytest.approx(16 * VOXEL_ML)
    assert found["volume_total_ml"] == pytest.approx(64 * VOXEL_ML)
    assert (found["lesion_count"], found["node_count"]) == (3, 2)
    assert found["suvmax_gtvp"] == 8
    assert found["suvmax_gtvn"] == found["suvmean_gtvn"] == 5
    assert found["suvmean_gtvp"] == pytest.approx(pet[mask == 1].mean(dtype=float))
    # The primary has 4 to 8 SUV, so all of it lies above 41 % of 8; the nodes are flat.
    assert found["mtv_gtvp_ml"] == found["volume_gtvp_ml"]
    assert found["mtv_ml"] == found["mtv_suv4_ml"] == found["volume_total_ml"]
    assert found["tlg_gtvn_g"] == pytest.approx(5 * 16 * VOXEL_ML)
    assert found["tlg_g"] == pytest.approx(found["tlg_gtvp_g"] + found["tlg_gtvn_g"])
    assert found["tlg_mask_g"] == pytest.approx(pet[mask > 0].sum(dtype=float) * VOXEL_ML)
    assert found["nodal_to_primary_volume"] == pytest.approx(16 / 48)
    assert found["nodal_to_primary_suv"] == pytest.approx(5 / 8)
    corners = np.argwhere(mask > 0) * SPACING
    assert found["dmax_mm"] == pytest.approx(max(np.linalg.norm(a - b) for a in corners for b in corners))
    assert found["first_order_ct_median_gtvp"] == pytest.approx(np.median(ct[mask == 1]))


def test_every_feature_is_registered_and_has_a_value_here():
    found = measure(*head(0), SPACING)
    assert list(found.values) == list(FEATURES)
    assert not [name for name, value in found.values.items() if math.isnan(value)]
    assert found.flags == ()


def test_an_empty_mask_is_nan_with_a_flag_and_never_zero():
    ct, pet, mask = head(0)
    found = measure(ct, pet, mask * 0, SPACING)
    assert found.flags == (EMPTY_MASK,)
    assert all(math.isnan(value) for value in found.values.values())


def test_no_node_is_a_finding():
    found = measure(*head(0, nodes=0), SPACING)
    assert found.flags == (NO_NODES,)
    zero = ("volume_gtvn_ml", "node_count", "mtv_gtvn_ml", "tlg_gtvn_g", "nodal_to_primary_volume")
    assert [found.values[name] for name in zero] == [0] * len(zero)
    missing = {name for name, value in found.values.items() if math.isnan(value)}
    assert missing == {"suvmax_gtvn", "suvmean_gtvn", "suvpeak_gtvn", "nodal_to_primary_suv"}


def test_a_missing_primary_is_no_primary_of_0_ml():
    found = measure(*head(0, primary=False), SPACING)
    assert found.flags == (NO_PRIMARY,)
    there = {name for name, value in found.values.items() if not math.isnan(value)}
    assert there == {
        *("volume_gtvn_ml", "volume_total_ml", "lesion_count", "node_count", "dmax_mm", "suvmax_gtvn", "suvmean_gtvn", "suvpeak_gtvn"),
        *("mtv_gtvn_ml", "tlg_gtvn_g", "mtv_ml", "tlg_g", "mtv_suv4_ml", "tlg_suv4_g", "tlg_mask_g"),
    }


def test_pet_that_is_not_in_suv_gives_no_uptake():
    ct, pet, mask = head(0)
    found = measure(ct, pet * 5000, mask, SPACING)
    assert found.flags == (PET_NOT_SUV,)
    assert "highest value" in found.notes[0]
    for name, feature in FEATURES.items():
        assert math.isnan(found.values[name]) == (feature.channel == "PET" or name == "nodal_to_primary_suv"), name


@pytest.mark.parametrize(("missing", "flag"), [("CT", NO_CT), ("PET", NO_PET)])
def test_a_missing_image_takes_its_features_with_it(missing, flag):
    ct, pet, mask = head(0)
    found = measure(None if missing == "CT" else ct, None if missing == "PET" else pet, mask, SPACING)
    assert found.flags == (flag,)
    assert {FEATURES[name].channel for name, value in found.values.items() if math.isnan(value)} == {missing}


def test_other_label_values_and_a_mask_at_the_border():
    ct, pet, mask = head(0)
    box = tuple(slice(low, None) for low in np.argwhere(mask == 1).min(axis=0))
    found = measure(ct[box], pet[box], np.where(mask == 1, 7, 0)[box], SPACING, {"GTVp": 7})
    whole = case_features(ct, pet, mask, SPACING)
    assert found.flags == ()
    for name in ("volume_gtvp_ml", "shape_sphericity_gtvp", "first_order_pet_skewness_gtvp", "mtv_gtvp_ml"):
        assert found.values[name] == pytest.approx(whole[name]), name


def test_order_of_axes_and_air_around_do_not_matter():
    ct, pet, mask = head(0, nodes=2)
    before = case_features(ct, pet, mask, SPACING)
    order = (2, 0, 1)
    padded = [np.pad(np.asarray(array).transpose(order), 3, constant_values=value) for array, value in ((ct, -1000), (pet, 0), (mask, 0))]
    after = case_features(*padded, [SPACING[axis] for axis in order])
    for name, value in before.items():
        # The mesh cuts ambiguous corners by the order of axes.
        assert after[name] == pytest.approx(value, rel=0.02 if name.startswith("shape") else 1e-6), name


def test_no_array_is_changed_and_none_is_kept():
    arrays = head(0)
    copies = [array.copy() for array in arrays]
    measure(*arrays, SPACING)
    assert all(np.array_equal(array, copy) for array, copy in zip(arrays, copies, strict=True))


@pytest.mark.parametrize(
    "change",
    [{"spacing": (1, 0, 1)}, {"labels": {"GTVn": 2}}, {"labels": {"GTVp": 1, "GTVx": 2}}, {"ct": np.zeros((2, 2, 2))}],
    ids=["spacing", "no primary label", "unknown label", "shape"],
)
def test_wrong_arguments(change):
    ct, pet, mask = head(0)
    with pytest.raises(ValueError):
        measure(**({"ct": ct, "pet": pet, "mask": mask, "spacing": SPACING} | change))


def test_definitions_are_complete():
    for name, feature in FEATURES.items():
        assert feature.name == name
        assert feature.unit
        assert feature.definition
        assert feature.group == ("volume" if name.startswith("volume_") else "image")
    assert len({feature.definition for feature in FEATURES.values()}) == len(FEATURES)
    assert set(FLAGS) == {EMPTY_MASK, NO_PRIMARY, NO_NODES, PET_NOT_SUV, NO_PET, NO_CT}
