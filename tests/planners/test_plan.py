from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from planners import plan as schema
from planners.plan import Plan, PlanInvalid, migrate
from planners.planner import plan
from planners.settings import override


@pytest.fixture(scope="module")
def planned(make_fingerprint):
    return plan(make_fingerprint([(1.0, 0.767, 0.767)], [(482, 512, 512)], cases=131, channels=["CT", "PT"], labels=3))


def test_json_round_trip_is_exact(planned):
    again = Plan.from_json(planned.to_json())
    assert again == planned
    assert again.to_json() == planned.to_json()
    assert json.loads(planned.to_json())["schema"] == "autoseg-plan/1"


def _edited(planned, path, value):
    document = json.loads(planned.to_json())
    target = document
    *first, last = path
    for key in first:
        target = target[key]
    target[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("colour",), 1, "colour: is not a known field"),
        (("configurations", "2d", "colour"), 1, "configurations.2d.colour: is not a known field"),
        (("configurations", "2d", "training", "colour"), 1, "training.colour: is not a known field"),
        (("configurations", "2d", "network", "kind"), "transformer", "configurations.2d.network"),
        (("configurations", "2d", "batch_size"), 0, "configurations.2d.batch_size"),
        (("configurations", "3d_fullres", "patch_size"), [100, 128, 128], "divisible by the product of the strides"),
        (("configurations", "3d_fullres", "patch_size"), [128, 128], "patch_size needs 3 entries, found 2"),
        (("configurations", "3d_fullres", "spacing"), [0, 1, 1], "spacing must be positive"),
        (("configurations", "3d_fullres", "inference", "mirror_axes"), [3], "mirror_axes must be axes below 3"),
        (("configurations", "3d_fullres", "network", "features"), [32, 64], "2 stages"),
        (("configurations", "3d_fullres", "training", "loss", "smooth"), float("nan"), "smooth"),
        (("orientation",), "upside_down", "orientation"),
        (("schema",), "autoseg-plan/2", "this release reads up to autoseg-plan/1. Install an autoseg release that reads autoseg-plan/2"),
        (("schema",), "autoseg-fingerprint/1", "must be 'autoseg-plan/N'"),
        (("schema",), "autoseg-plan/0", "no migration to autoseg-plan/1"),
    ],
)
def test_a_broken_plan_is_refused_by_field(planned, path, value, message):
    with pytest.raises(PlanInvalid, match=r"plan\.json: ") as caught:
        Plan.from_json(_edited(planned, path, value), source="plan.json")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}"])
def test_no_plan_at_all(text):
    with pytest.raises(PlanInvalid, match=r"plan\.json: "):
        Plan.from_json(text, source="plan.json")


def test_an_older_plan_migrates_step_by_step(planned, monkeypatch):
    old = json.loads(planned.to_json())
    old["schema"] = "autoseg-plan/0"
    old["title"] = old.pop("name")

    def rename(document):
        return {**{key: value for key, value in document.items() if key != "title"}, "name": document["title"]}

    monkeypatch.setitem(schema.MIGRATIONS, 0, rename)
    assert Plan.model_validate(migrate(old)) == planned


def test_configuration_by_name(planned):
    assert planned.configuration("2d") is planned.configurations["2d"]
    with pytest.raises(PlanInvalid, match="no configuration '4d'; it has: 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres"):
        planned.configuration("4d")


def test_override_one_configuration_or_all(planned):
    one = override(planned, {"training.epochs": 5, "training.optimiser.lr": 0.1}, "2d")
    assert (one.configurations["2d"].training.epochs, one.configurations["2d"].training.optimiser.lr) == (5, 0.1)
    assert one.configurations["3d_fullres"] == planned.configurations["3d_fullres"]
    everywhere = override(planned, {"training.epochs": 5})
    assert {c.training.epochs for c in everywhere.configurations.values()} == {5}
    assert planned.configurations["2d"].training.epochs == 1000


def test_override_by_full_path_and_in_lists(planned):
    found = override(planned, {"orientation": "as_stored", "configurations.2d.batch_size": 4, "normalisation.0.lower": -1000.0})
    assert (found.orientation, found.configurations["2d"].batch_size) == ("as_stored", 4)
    assert all(c.normalisation[0].lower == -1000 for c in found.configurations.values())


def test_override_of_a_kind_keeps_what_was_changed_and_goes_before_its_fields(planned):
    pooled = override(planned, {"training.loss.batch_dice": True, "training.loss.ce_weight": 0.5}, "3d_fullres")
    loss = (
        override(pooled, {"training.loss.percent": 5, "training.loss.kind": "dice_topk"}, "3d_fullres")
        .configurations["3d_fullres"]
        .training.loss
    )
    assert loss == schema.DiceTopKLoss(batch_dice=True, ce_weight=0.5, percent=5)
    back = override(pooled, {"training.loss.kind": "dice_ce"}, "3d_fullres")
    assert back == pooled
    adam = override(planned, {"training.optimiser.kind": "adamw", "training.optimiser.betas": [0.8, 0.99]}, "2d").configurations["2d"]
    assert adam.training.optimiser == schema.AdamW(betas=(0.8, 0.99)), "a rate that was SGD's default is not taken over"


@pytest.mark.parametrize(
    ("settings", "configuration", "message"),
    [
        ({"training.loss.kind": "hinge"}, None, "dice_topk"),
        ({"training.schedule.warmup_epochs": 20, "training.epochs": 20}, None, "warmup_epochs (20) must be below epochs (20)"),
        ({"training.accumulation": 1000}, None, "accumulation (1000) must not exceed batch_size"),
        ({"training.early_stopping": {"patience": 0}}, None, "early_stopping.patience"),
        ({"training.optimiser.momentum": 0}, None, "nesterov needs a momentum above 0"),
        ({"training.loss.dice_weight": 0, "training.loss.ce_weight": 0}, None, "dice_weight and ce_weight are both 0"),
        (
            {"training.loss.kind": "tversky_ce", "training.loss.alpha": 0, "training.loss.beta": 0},
            None,
            "alpha and beta are both 0",
        ),
        ({"training.loss.gamma": 2}, None, "no field 'gamma' here"),
        ({"training.epoch": 5}, None, "no field 'epoch' here; known: epochs"),
        ({"training.epochs": 0}, None, "training.epochs"),
        ({"training.epochs": "many"}, None, "training.epochs"),
        ({"patch_size": [100, 100]}, "2d", "divisible"),
        ({"normalisation.7.lower": 0}, None, "known: 0 to 1"),
        ({"batch_size.x": 0}, None, "known: nothing"),
        ({"training.epochs": 5}, "4d", "4d"),
    ],
)
def test_override_refuses(planned, settings, configuration, message):
    with pytest.raises(PlanInvalid) as caught:
        override(planned, settings, configuration)
    assert message in str(caught.value)


def test_the_documentation_names_every_field():
    text = (Path(__file__).parents[2] / "docs" / "planning.md").read_text()
    described = [schema.Plan, schema.Training, schema.Inference, schema.Resampling, schema.UNetSpec, schema.ResidualUNetSpec]
    described += [schema.SGD, schema.PolySchedule, schema.DiceCELoss, schema.Augmentation, schema.Configuration]
    described += [schema.DiceFocalLoss, schema.DiceTopKLoss, schema.TverskyCELoss, schema.CCDiceCELoss]
    described += [schema.AdamW, schema.CosineSchedule, schema.EarlyStopping, schema.Pretraining]
    names = {field.rstrip("_") for model in described for field in model.model_fields}
    assert {name for name in names if not re.search(rf"[`.]{name}[`.]", text)} == set()


def test_a_previous_stage_must_be_there_and_stages_must_end(planned):
    document = json.loads(planned.to_json())
    document["configurations"]["3d_cascade_fullres"]["previous_stage"] = "3d_low"
    with pytest.raises(PlanInvalid, match=r"3d_cascade_fullres.previous_stage: no configuration '3d_low'; known: 2d, 3d_lowres"):
        Plan.from_json(json.dumps(document))
    document["configurations"]["3d_cascade_fullres"]["previous_stage"] = "3d_fullres"
    document["configurations"]["3d_fullres"]["previous_stage"] = "3d_cascade_fullres"
    with pytest.raises(PlanInvalid, match="goes in a circle: 3d_fullres <- 3d_cascade_fullres <- 3d_fullres"):
        Plan.from_json(json.dumps(document))


def test_a_plan_from_before_the_masks_augmentation_is_read_without_it(planned):
    document = json.loads(planned.to_json())
    del document["configurations"]["3d_cascade_fullres"]["augmentation"]["previous_stage"]
    assert Plan.from_json(json.dumps(document)).configurations["3d_cascade_fullres"].augmentation.previous_stage is None


@pytest.mark.parametrize("radius", [[0, 4], [5, 2], [1, 400]])
def test_a_ball_has_a_radius(planned, radius):
    with pytest.raises(PlanInvalid, match=r"must be a range inside \(0, 100\] voxels"):
        override(planned, {"augmentation.previous_stage.morphology.radius": radius}, "3d_cascade_fullres")


REGIONS = {"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}


def test_regions_survive_the_document_and_keep_their_order(planned):
    plan = Plan.model_validate(planned.model_dump(by_alias=True) | {"labels": REGIONS, "region_order": (1, 2)})
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert list(again.labels.items()) == list(REGIONS.items())
    assert (again.label_scheme.heads, again.label_scheme.ignore) == (2, 3)


def test_plans_without_the_newer_fields_are_plain(planned):
    document = planned.model_dump(mode="json", by_alias=True)
    del document["region_order"]
    for configuration in document["configurations"].values():
        del configuration["training"]["sampling"]
    assert Plan.from_json(json.dumps(document)) == planned


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"region_order": [1]}, "regions_class_order: stands without a region"),
        ({"labels": REGIONS}, "must give each of the 2 classes"),
        ({"labels": {"background": 0, "tumour": 2, "ignore": 1}}, "labels.ignore: must be the highest"),
        ({"classes": {"cyst": 1}}, "2d.training.sampling.classes: no class is called cyst; there are"),
        ({"classes": {"cyst": 0}}, "at least one class needs a weight above 0"),
        ({"lesion_exponent": 1.5}, "lesion_exponent: must be 1 or less, found 1.5"),
    ],
)
def test_labels_and_sampling_that_do_not_fit_are_named(planned, change, part):
    document = planned.model_dump(mode="json", by_alias=True)
    sampling = {name: value for name, value in change.items() if name in ("classes", "lesion_exponent")}
    document |= {name: value for name, value in change.items() if name not in sampling}
    document["configurations"]["2d"]["training"]["sampling"] |= sampling
    with pytest.raises(PlanInvalid, match=part):
        Plan.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda d: d.update(transpose=[0, 0, 2]), "transpose must hold each of 0, 1 and 2 once, found [0, 0, 2]"),
        (lambda d: d["configurations"]["2d"]["normalisation"].pop(), "configurations.2d.normalisation: one is needed for each of the 2"),
        (lambda d: d["configurations"]["2d"]["network"]["strides"].__setitem__(1, [2, 0]), "network.strides: each needs 2 entries of 1"),
        (lambda d: d["configurations"]["2d"]["network"]["kernels"].__setitem__(1, [3, 3, 3]), "network.kernels: each needs 2 entries of 1"),
        (lambda d: d["configurations"]["2d"]["augmentation"]["spatial"].update(scaling=[1.4, 0.7]), "the lower end first"),
        (lambda d: d["configurations"]["2d"]["augmentation"]["gamma"].update(gamma=[0, 1.5]), "must be above 0"),
    ],
)
def test_an_edit_that_fits_nothing_is_refused_by_name(planned, change, part):
    document = planned.model_dump(mode="json", by_alias=True)
    change(document)
    with pytest.raises(PlanInvalid) as caught:
        Plan.from_json(json.dumps(document))
    assert part in str(caught.value)
