"""Plans for another memory than the preset's: every field that nnunetv2 2.8.1's planners printed under -gpu_memory_target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planners.plan import PlanInvalid
from planners.planner import plan
from planners.presets import PRESETS, preset

ROWS = json.loads((Path(__file__).parent / "memory_target.json").read_text())["rows"]


def row_name(row):
    return f"{row['set']}-{row['preset']}-{row['memory_gb']}"


@pytest.mark.parametrize("row", ROWS, ids=row_name)
def test_equals_nnunetv2(row, make_fingerprint):
    fingerprint = make_fingerprint(
        [row["spacing"]], [row["median_shape"]], cases=row["cases"], labels=row["labels"], channels=row["channels"]
    )
    planned = plan(fingerprint, preset=row["preset"], memory_gb=row["memory_gb"])
    assert list(planned.transpose) == row["transpose"]
    assert set(planned.configurations) - {"3d_cascade_fullres"} == set(row["configurations"])
    for name, expected in row["configurations"].items():
        found = planned.configurations[name]
        assert {
            "patch": list(found.patch_size),
            "batch": found.batch_size,
            "spacing": [round(value, 6) for value in found.spacing],
            "strides": [list(stride) for stride in found.network.strides],
            "kernels": [list(kernel) for kernel in found.network.kernels],
            "features": list(found.network.features),
            "batch_dice": found.training.loss.batch_dice,
        } == expected, name


def test_the_rows_tell_something():
    """A target that left the plan of the preset's own memory as it is would prove nothing."""
    patches = {(row["set"], row["preset"]): set() for row in ROWS}
    for row in ROWS:
        full = row["configurations"]["3d_fullres"]
        patches[row["set"], row["preset"]].add((*full["patch"], full["batch"]))
    assert all(len(found) > 1 for found in patches.values())


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_own_memory_changes_nothing(name, make_fingerprint):
    fingerprint = make_fingerprint([(2.0, 0.712, 0.712)], [(214, 512, 512)], cases=36, channels=["CT"])
    assert plan(fingerprint, preset=name, memory_gb=preset(name).memory_gb) == plan(fingerprint, preset=name)


def test_the_target_is_told_in_the_reasons(make_fingerprint):
    fingerprint = make_fingerprint([(1.0, 1.0, 1.0)], [(192, 192, 192)], cases=36)
    planned = plan(fingerprint, memory_gb=12)
    assert planned.reasons["memory"] == "12 GB were asked for; preset default is for 8 GB: the elements that it allows are scaled by 1.5"
    assert "preset default allows 8.4e+08" in planned.reasons["3d_fullres.patch_size"]
    assert "memory" not in plan(fingerprint).reasons


@pytest.mark.parametrize("memory_gb", [0.0, -8.0, float("nan"), float("inf")])
def test_a_target_that_is_no_amount_is_refused(memory_gb, make_fingerprint):
    with pytest.raises(PlanInvalid, match="must be a positive number of GB"):
        plan(make_fingerprint([(1.0, 1.0, 1.0)], [(64, 64, 64)]), memory_gb=memory_gb)


@pytest.mark.parametrize("name", PRESETS)
def test_too_little_for_any_network_names_what_it_takes(name, make_fingerprint):
    with pytest.raises(PlanInvalid, match=r"1e-05 GB are too little for preset .* smallest 2-D network, for a patch of .* GB") as caught:
        plan(make_fingerprint([(1.0, 1.0, 1.0)], [(64, 64, 64)]), preset=name, memory_gb=1e-5)
    assert f"preset {name}" in str(caught.value)
