"""Every field that nnunetv2 2.8.1's own planners printed for 60 fingerprints."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from planners.planner import plan, second_stage

SHARED = Path(os.environ.get("AUTOSEG_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOLDEN = SHARED / "planner_golden.json"
TABLE = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"named": [], "drawn": []}
PRESETS = {
    "ExperimentPlanner": "default",
    "nnUNetPlannerResEncM": "resenc-m",
    "nnUNetPlannerResEncL": "resenc-l",
    "nnUNetPlannerResEncXL": "resenc-xl",
}
SCHEMES = {"ct": "CTNormalization", "zscore": "ZScoreNormalization", "pet": "ZScoreNormalization", "none": "NoNormalization"}
"""PET is the one field that differs on purpose: nnU-Net has no scheme of its own for it (docs/planning.md, Normalisation)."""


@pytest.mark.skipif(not GOLDEN.exists(), reason="planner_golden.json is missing: let AUTOSEG_DATA name the folder that holds it")
def test_golden_table_is_whole():
    assert (len(TABLE["named"]), len(TABLE["drawn"])) == (32, 28)


def _fields(configuration):
    return {
        "patch": list(configuration.patch_size),
        "batch": configuration.batch_size,
        "spacing": [round(value, 6) for value in configuration.spacing],
        "median": list(configuration.median_shape),
        "strides": [list(stride) for stride in configuration.network.strides],
        "kernels": [list(kernel) for kernel in configuration.network.kernels],
        "features": list(configuration.network.features),
        "batch_dice": configuration.training.loss.batch_dice,
    }


@pytest.mark.parametrize("entry", TABLE["named"], ids=lambda e: f"{e['set']}-{PRESETS[e['planner']]}")
def test_named(entry, make_fingerprint):
    fingerprint = make_fingerprint([entry["spacing"]], [entry["median_shape"]], cases=entry["cases"], labels=entry["labels"])
    planned = plan(fingerprint, preset=PRESETS[entry["planner"]])
    assert list(planned.transpose) == entry["transpose_forward"]
    assert set(planned.configurations) - {"3d_cascade_fullres"} == set(entry["configs"])
    assert ("3d_cascade_fullres" in planned.configurations) == ("3d_lowres" in entry["configs"])
    for name, expected in entry["configs"].items():
        found = _fields(planned.configurations[name])
        assert len(found["strides"]) == expected["stages"]
        found["spacing"] = [round(value, 4) for value in found["spacing"]]  # printed with four decimals
        assert found == {key: value for key, value in expected.items() if key != "stages"}, name


@pytest.mark.parametrize("preset", PRESETS.values())
@pytest.mark.parametrize("entry", TABLE["drawn"], ids=lambda e: str(e["id"]))
def test_drawn(entry, preset, make_fingerprint):
    fingerprint = make_fingerprint(
        entry["spacings_of_first_cases_then_repeating"],
        entry["shapes_after_crop_of_first_cases_then_repeating"],
        cases=entry["n_cases"],
        channels=entry["channel_names"],
        labels=entry["n_labels_with_background"],
        relative_size=entry["median_relative_size_after_cropping"],
    )
    planned, expected = plan(fingerprint, preset=preset), entry["plans"][preset]
    assert list(planned.transpose) == expected["transpose_forward"]
    assert list(planned.configurations) == list(expected["configurations"])
    for name, wanted in expected["configurations"].items():
        configuration = planned.configurations[name]
        if name == "3d_cascade_fullres":
            assert wanted == {"previous_stage": configuration.previous_stage, "inherits_from": "3d_fullres"}
            assert second_stage(planned.configurations["3d_fullres"], "3d_lowres") == configuration
            continue
        assert _fields(configuration) == {
            "patch": wanted["patch_size"],
            "batch": wanted["batch_size"],
            "spacing": [round(value, 6) for value in wanted["spacing"]],
            "median": wanted["median_image_size_in_voxels"],
            "strides": wanted["strides"],
            "kernels": wanted["kernel_sizes"],
            "features": wanted["features_per_stage"],
            "batch_dice": wanted["batch_dice"],
        }, name
        assert [SCHEMES[item.kind] for item in configuration.normalisation] == wanted["normalization_schemes"]
        for item, masked in zip(configuration.normalisation, wanted["use_mask_for_norm"], strict=True):
            assert item.kind == "pet" or getattr(item, "masked", False) == masked
