"""What follows from a spacing that was asked for: every field that nnunetv2 2.8.1's planners printed under -overwrite_target_spacing."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from planners.plan import PlanInvalid, PreviousStageMasks
from planners.planner import plan
from planners.settings import override, plan_as_asked, with_reasons

ROWS = json.loads((Path(__file__).parent / "asked_spacing.json").read_text())["rows"]
FULL = "configurations.3d_fullres.spacing"


def asked_for(fingerprint, settings, **options):
    return plan_as_asked(lambda spacings: plan(fingerprint, **options, spacings=spacings), settings)


@pytest.fixture(scope="module")
def liver(make_fingerprint):
    return make_fingerprint([(1.0, 0.767, 0.767)], [(482, 512, 512)], cases=131, labels=3, channels=["CT"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['set']}-{row['preset']}-{row['asked']}")
def test_equals_nnunetv2(row, make_fingerprint):
    fingerprint = make_fingerprint([row["spacing"]], [row["shape"]], cases=row["cases"], labels=row["labels"], channels=[row["channel"]])
    planned = asked_for(fingerprint, {FULL: row["asked"]}, preset=row["preset"])
    assert list(planned.transpose) == row["transpose"]
    assert set(planned.configurations) - {"2d", "3d_cascade_fullres"} == set(row["configurations"])
    for name, expected in row["configurations"].items():
        found = planned.configurations[name]
        assert {
            "patch": list(found.patch_size),
            "batch": found.batch_size,
            "spacing": [round(value, 6) for value in found.spacing],
            "median_shape": list(found.median_shape),
            "strides": [list(stride) for stride in found.network.strides],
            "kernels": [list(kernel) for kernel in found.network.kernels],
            "features": list(found.network.features),
            "batch_dice": found.training.loss.batch_dice,
        } == expected, name


def test_the_reasons_are_those_of_the_asked_grid(liver):
    usual, asked = plan(liver), asked_for(liver, {FULL: [5.0, 5.0, 5.0], "configurations.3d_fullres.batch_size": 3})
    assert asked.reasons["3d_fullres.spacing"] == "[5.0, 5.0, 5.0], as asked for; planned was [1.0, 0.767, 0.767]"
    assert "inside the median case 96 x 79 x 79" in asked.reasons["3d_fullres.patch_size"]
    assert asked.reasons["3d_fullres.batch_size"] == "3, as asked for; planned was 6", "what was planned for that spacing"
    assert asked.reasons["3d_lowres"].startswith("not planned")
    assert not [key for key in asked.reasons if key.startswith(("3d_lowres.", "3d_cascade_fullres"))]
    assert asked.configurations["2d"] == usual.configurations["2d"]
    one = asked_for(liver, {f"{FULL}.0": 5.0})
    assert one.configurations["3d_fullres"].spacing == (5.0, 0.767, 0.767)
    assert one.configurations["3d_fullres"].median_shape == (96.0, 512.0, 512.0)


def test_a_cascade_goes_with_its_full_resolution_unless_asked_otherwise(liver):
    asked = asked_for(liver, {FULL: [2.0, 1.5, 1.5]}).configurations
    masks = asked["3d_fullres"].augmentation.model_copy(update={"previous_stage": PreviousStageMasks()})
    wanted = {"previous_stage": "3d_lowres", "augmentation": masks}
    assert asked["3d_cascade_fullres"] == asked["3d_fullres"].model_copy(update=wanted)
    apart = asked_for(liver, {"configurations.3d_cascade_fullres.spacing": [2.0, 1.5, 1.5]})
    usual = plan(liver).configurations
    assert apart.configurations["3d_fullres"] == usual["3d_fullres"]
    assert apart.configurations["3d_cascade_fullres"] == asked["3d_cascade_fullres"]
    assert apart.reasons["3d_cascade_fullres.spacing"].endswith("planned was [1.0, 0.767, 0.767]")


def test_a_grid_of_a_configuration_that_only_another_asked_grid_calls_for(make_fingerprint):
    heart = make_fingerprint([(2.0, 2.0, 2.0)], [(100, 160, 160)], cases=20)
    assert "3d_lowres" not in plan(heart).configurations
    settings = {"configurations.3d_lowres.spacing": [3.0, 2.0, 2.0], FULL: [0.5, 0.5, 0.5]}
    asked = asked_for(heart, settings).configurations
    assert (asked["3d_lowres"].spacing, asked["3d_lowres"].median_shape) == ((3.0, 2.0, 2.0), (67.0, 160.0, 160.0))
    assert asked["3d_fullres"].median_shape == (400.0, 640.0, 640.0)
    with pytest.raises(PlanInvalid, match="3d_lowres"):
        asked_for(heart, {"configurations.3d_lowres.spacing": [3.0, 2.0, 2.0]})


@pytest.mark.parametrize(("name", "spacing"), [("2d", [2.0, 1000.0]), ("3d_fullres", [1000.0, 2.0, 2.0])])
def test_an_axis_coarser_than_the_median_case_is_long_has_one_voxel(make_fingerprint, name, spacing):
    heart = make_fingerprint([(2.0, 2.0, 2.0)], [(100, 160, 160)], cases=20)
    found = asked_for(heart, {f"configurations.{name}.spacing": spacing}).configurations[name]
    axis = spacing.index(1000.0)
    assert (found.spacing, found.median_shape[axis], found.patch_size[axis]) == (tuple(spacing), 1.0, 1)
    with pytest.raises(PlanInvalid, match="1 x 1.*too small for a network"):
        asked_for(heart, {f"configurations.{name}.spacing": [1000.0] * len(spacing)})


def test_the_axes_stay_those_of_the_data(make_fingerprint):
    """Spacings are given in the network's order: another order would give them to other axes."""
    sagittal = make_fingerprint([(0.5, 0.5, 2.0)], [(300, 310, 60)], cases=20)
    asked = asked_for(sagittal, {FULL: [1.0, 1.0, 4.0], "configurations.2d.spacing": [1.0, 2.0]})
    assert asked.transpose == plan(sagittal).transpose == (2, 0, 1)
    assert asked.configurations["3d_fullres"].median_shape == (120.0, 150.0, 39.0)
    assert asked.configurations["2d"].median_shape == (150.0, 78.0)
    assert asked.configurations["2d"].patch_size != plan(sagittal).configurations["2d"].patch_size


def test_without_a_fingerprint_the_median_shape_follows_in_proportion(liver):
    """As when one run of training is given another spacing."""
    planned = plan(liver)
    settings = {"spacing": [2.0, 1.0, 1.0]}
    change = partial(override, planned, configuration="3d_fullres")
    changed = change(settings)
    spec = changed.configurations["3d_fullres"]
    assert spec.median_shape == (241.0, 393.0, 393.0)  # 482 / 2, 512 x 0.767
    assert spec.patch_size == planned.configurations["3d_fullres"].patch_size
    reasons = with_reasons(changed, planned, settings, "3d_fullres").reasons
    assert reasons["3d_fullres.median_shape"].startswith("[241.0, 393.0, 393.0], in proportion to the spacing; planned was [482.0")
    assert "3d_cascade_fullres.median_shape" not in reasons
    assert change({**settings, "median_shape": [1, 2, 3]}).configurations["3d_fullres"].median_shape == (1.0, 2.0, 3.0)
