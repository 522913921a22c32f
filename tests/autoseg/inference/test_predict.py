"""Predicting a folder: which model is taken, which cases, what is said."""

import json
import shutil

import numpy as np
import pytest

from autoseg.dataset.workspace import Workspace
from autoseg.errors import CasesFailed, ModelError, PlanError
from autoseg.images import Geometry, write_image
from autoseg.inference.predict import predict_folder

FOLDS = {
    "schema": "autoseg-folds/1",
    "seed": 0,
    "file_sha256": None,
    "folds": {"0": {"training": ["X"], "validation": ["Y"]}},
    "cases": {name: {"patient": name, "centre": "", "labels": None} for name in "XY"},
}


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for case in ("A", "B"):
        for channel in range(2):
            write_image(folder / f"{case}_{channel:04d}.nii.gz", rng.normal(size=(6, 7, 8)), Geometry((6, 7, 8), (2.0, 2.0, 2.0)))
    (folder / "notes.txt").write_text("x")
    return folder


@pytest.fixture
def trained(tmp_path, make_model, plan):
    """A dataset folder with a plan and one finished fold."""
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    workspace = Workspace.of(dataset)
    workspace.make()
    workspace.plan.write_text(plan.to_json())
    workspace.folds.write_text(json.dumps({**FOLDS, "scheme": "cv5"}))
    target = workspace.model("3d_fullres", "cv5")
    target.parent.mkdir(parents=True)
    shutil.move(make_model(plan), target)
    return dataset


def test_the_datasets_own_finished_folds_are_the_default(trained, inputs, tmp_path):
    result = predict_folder([inputs], tmp_path / "out", dataset=trained, device="cpu", mirroring=False)
    assert result.model == trained / "autoseg-work" / "default" / "3d_fullres" / "cv5"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["A.nii.gz", "B.nii.gz", "predictions.jsonl", "review.csv"]
    assert "2 cases predicted" in result.text()
    assert any("notes.txt" in note for note in result.notes)
    assert "research use only" in result.text()
    assert [case["case"] for case in result.to_dict()["cases"]] == ["A", "B"]
    again = predict_folder([inputs], tmp_path / "out", dataset=trained, device="cpu", mirroring=False, resume=True, workers=0)
    assert again.text().startswith("0 cases predicted, 2 done before\n")
    assert all(case["skipped"] for case in again.to_dict()["cases"])
    # Masks of another precision are not taken for these.
    other = predict_folder([inputs], tmp_path / "out", dataset=trained, device="cpu", mirroring=False, resume=True, precision="bf16")
    assert not any(case.skipped for case in other.cases)


def test_the_files_of_one_case(make_model, plan, inputs, tmp_path):
    files = [inputs / "A_0000.nii.gz", inputs / "A_0001.nii.gz"]
    result = predict_folder(files, tmp_path / "out", model=make_model(plan), device="cpu", mirroring=False)
    assert [case["case"] for case in result.to_dict()["cases"]] == ["A"]


def test_a_missing_channel_fails_that_case_only(make_model, plan, inputs, tmp_path):
    (inputs / "A_0001.nii.gz").unlink()
    with pytest.raises(CasesFailed, match=r"A_0001\.nii\.gz \(PT\)") as caught:
        predict_folder([inputs], tmp_path / "out", model=make_model(plan), device="cpu", mirroring=False)
    assert caught.value.done == 1
    text = caught.value.result.text()
    assert text.startswith("1 case predicted with fold 0 in ")
    assert "listed by urgency of review in review.csv" in text


def test_no_plan_or_no_finished_fold_is_an_error_that_says_what_to_do(trained, inputs, tmp_path):
    with pytest.raises(PlanError, match="no plan 'other'"):
        predict_folder([inputs], tmp_path / "out", dataset=trained, name="other")
    with pytest.raises(ModelError, match="no fold of 2d is finished.*autoseg_train"):
        predict_folder([inputs], tmp_path / "out", dataset=trained, configuration="2d")


def test_a_configuration_that_the_model_is_not(make_model, plan, inputs, tmp_path):
    with pytest.raises(ModelError, match="3d_fullres.*2d"):
        predict_folder([inputs], tmp_path / "out", model=make_model(plan), configuration="2d", device="cpu")
