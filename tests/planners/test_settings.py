"""What settings do to a plan's reasons, and what of them is refused before the data are known."""

import pytest

from planners.plan import PlanInvalid
from planners.planner import plan
from planners.presets import PRESETS
from planners.settings import check_settings, override, with_reasons

DATASET = {"channels": ("CT", "PET"), "labels": {"background": 0, "tumour": 1}}


@pytest.fixture(scope="module")
def planned(make_fingerprint):
    return plan(make_fingerprint([(1.0, 0.767, 0.767)], [(482, 512, 512)], cases=131, channels=["CT", "PT"]))


def told(planned, settings):
    return with_reasons(override(planned, settings), planned, settings).reasons


def test_a_reason_says_what_was_asked_for(planned):
    reasons = told(planned, {"configurations.3d_fullres.batch_size": 4, "training.epochs": 50})
    assert reasons["3d_fullres.batch_size"] == "4, as asked for; planned was 2"
    assert reasons["2d.batch_size"] == planned.reasons["2d.batch_size"]
    assert {reasons[f"{name}.training.epochs"] for name in planned.configurations} == {"50, as asked for; planned was 1000"}
    assert planned.reasons["3d_fullres.batch_size"].startswith("2: ")


def test_reasons_of_what_is_replaced_as_a_whole_go(planned):
    reasons = told(planned, {"training.loss": {"kind": "dice_topk"}, "normalisation.0": {"kind": "none"}})
    assert "3d_fullres.training.loss.batch_dice" not in reasons
    assert "dice_topk" in reasons["3d_fullres.training.loss"]
    assert "normalisation.0" not in reasons, "no configuration has the planned one any more"
    assert "normalisation.1" in reasons
    one = told(planned, {"configurations.2d.normalisation.0": {"kind": "none"}})
    assert {"normalisation.0", "2d.normalisation.0"} <= set(one)
    assert told(planned, {"geometry_tolerance": 0.5})["geometry_tolerance"] == "0.5, as asked for; planned was 0.1"
    whole = told(planned, {"normalisation": [{"kind": "none"}, {"kind": "none"}]})
    assert not {"normalisation.0", "normalisation.1"} & set(whole)


def test_a_reason_for_all_of_a_value_names_the_part_that_was_asked_for(planned):
    settings = {"configurations.3d_fullres.patch_size.0": 64}
    reasons = told(planned, settings)
    assert reasons["3d_fullres.patch_size.0"] == "64, as asked for; planned was 128"
    assert reasons["3d_fullres.patch_size"] == f"{planned.reasons['3d_fullres.patch_size']}; not so 0, see there"
    assert reasons["3d_lowres"] == planned.reasons["3d_lowres"], "why there is a configuration is no reason for its values"
    changed = with_reasons(override(planned, settings), planned, settings)
    again = with_reasons(override(changed, settings), changed, settings).reasons
    assert again == reasons | {"3d_fullres.patch_size.0": "64, as asked for and as planned"}


def test_settings_of_one_configuration_leave_the_reasons_of_others(planned):
    settings = {"training.epochs": 7, "normalisation.0": {"kind": "none"}}
    reasons = with_reasons(override(planned, settings, "2d"), planned, settings, "2d").reasons
    assert reasons["2d.training.epochs"] == "7, as asked for; planned was 1000"
    assert reasons["normalisation.0"] == planned.reasons["normalisation.0"]
    assert {key: why for key, why in reasons.items() if not key.startswith("2d.")} == {
        key: why for key, why in planned.reasons.items() if not key.startswith("2d.")
    }


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"training.epoch": 5}, "no field 'epoch' here; known: epochs"),
        ({"training.epochs": 0}, "training.epochs"),
        ({"training.epochs": "many"}, "training.epochs"),
        ({"training.loss.kind": "hinge"}, "dice_topk"),
        ({"training.loss.percent": 5}, "no field 'percent' here"),
        ({"training.schedule.warmup_epochs": 20, "training.epochs": 20}, "must be below epochs (20)"),
        ({"configurations.3d_midres.batch_size": 2}, "no field '3d_midres' here"),
        ({"configurations.3d_lowres.batch_size": 0}, "configurations.3d_lowres.batch_size"),
        ({"configurations.3d_fullres.spacing": [1, 1]}, "spacing needs 3 entries, found 2"),
        ({"configurations.3d_fullres.previous_stage": "3d_low"}, "no configuration '3d_low'"),
        ({"training.sampling.classes": {"cyst": 1}}, "no class is called cyst; there are tumour"),
        ({"augmentation.noise.std": [0.2, 0.1]}, "the lower end first"),
        ({"augmentation.low_resolution.zoom": [0, 1]}, "must be above 0"),
        ({"augmentation.blur.sigma": [-1, 1]}, "must not be negative"),
        ({"augmentation.gamma.channels": [[0.5, 2]]}, "one range a channel (2)"),
        ({"inference.step": 2}, "inference.step"),
    ],
)
def test_refused_before_data_are_known(settings, part):
    with pytest.raises(PlanInvalid) as caught:
        check_settings(settings, preset="default", **DATASET)
    assert part in str(caught.value)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(PlanInvalid) as caught:
        check_settings({"training.epoch": 5, "inference.step": 2, "training.loss.kind": "hinge"}, preset="default", **DATASET)
    assert all(part in str(caught.value) for part in ("'epoch'", "inference.step", "dice_topk"))


@pytest.mark.parametrize("preset", PRESETS)
def test_what_some_data_could_make_right_is_left_alone(preset, planned):
    """Sizes that fit another plan's network, deeper networks, stages that only large volumes have."""
    deeper = planned.configurations["3d_fullres"]
    settings = {
        "configurations.3d_fullres.network": deeper.network.model_dump(mode="json"),
        "configurations.3d_fullres.patch_size": list(deeper.patch_size),
        "configurations.2d.patch_size": [7, 7],
        "configurations.3d_lowres.batch_size": 8,
        "training.accumulation": 100,
        "network.features.9": 512,
        "normalisation.1": {"kind": "zscore", "masked": True},
        "training.loss.percent": 5,
        "training.loss.kind": "dice_topk",
        "training.early_stopping": {"patience": 3},
        "augmentation.noise": None,
        "geometry_tolerance": 0.5,
    }
    check_settings(settings, preset=preset, **DATASET)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_values_of_a_real_plan_pass(preset, planned):
    document = planned.model_dump(mode="json", by_alias=True)
    settings = {
        f"configurations.{name}.{field}": value for name, spec in document["configurations"].items() for field, value in spec.items()
    }
    check_settings(settings, preset=preset, **DATASET)
