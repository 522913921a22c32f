"""New patients from images to a prognosis, through the command: masks, features, risks, and every way of not predicting."""

import csv
import shutil
from argparse import ArgumentParser

import numpy as np
import pandas as pd
import pytest
from fitted import play_network
from segmented import CONFIGURATION, SPACING, head

from autoseg.errors import CasesFailed, ModelError
from autoseg.images import read_mask, write_image
from autoseg.inference.case_list import CaseList
from prognosis.commands import predict as command
from prognosis.errors import CohortError, PrognosisModelError
from prognosis.features.case import measure
from prognosis.features.table import FeatureTable
from prognosis.models.document import read_model
from prognosis.prediction import predict as prediction
from prognosis.prediction.patients import Clinical, model_frame
from prognosis.targets import Declaration


def call(ready, output, *arguments, images="imagesTs"):
    options = ArgumentParser()
    command.add(options.add_subparsers())
    common = ["-d", ready.dataset.folder, "-i", ready.dataset.folder / images, "-o", output, "--no-mirroring", "--workers", 0]
    return command.call(options.parse_args(["predict", *map(str, [*common, *arguments])]))


def a_mask(monkeypatch, masks):
    play_network(monkeypatch, masks.__getitem__)


def test_the_prediction_is_what_the_model_says_of_the_features_of_the_mask(ready, tmp_path, document, capsys, monkeypatch):
    a_mask(monkeypatch, {"N-0": head(10)[2], "N-1": head(11)[2]})
    result = call(ready, tmp_path / "out")
    assert result == document(tmp_path / "out")
    model = read_model(ready.dataset.work.root / "default" / "prognosis" / "rfs" / "model.json")
    ct, pet, mask = head(10)
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / "N-0.nii.gz").array, mask)
    clinical = Clinical.of(ready.dataset.folder / "casesTs.csv", ["N-0"], Declaration())
    frame = model_frame(model.fitted, ["N-0"], clinical, {"N-0": measure(ct, pet, mask, SPACING)})
    first = result["patients"][0]
    told = first["predicted"]["rfs"]
    assert (first["patient"], told["status"]) == ("Nora", "ok")
    assert told["risk"] == pytest.approx(float(model.fitted.risk(frame)[0]), rel=1e-5)
    assert told["survival"]["730"] == pytest.approx(float(model.fitted.survival(frame, [730])[0, 0]), rel=1e-5)
    assert list(told["survival"]) == ["365", "730", "1096", "1826"]
    assert told["survival"]["1826"] is None  # nobody was followed that long
    assert 0 < first["predicted"]["hpv"]["probability"] < 1
    assert first["predicted"]["hpv"]["measured"] == "1"
    out = capsys.readouterr().out
    assert "that stands; the prediction does not replace it" in out
    assert "not a medical device" in out


def test_a_network_with_weights_runs_through(ready, tmp_path, document):
    """Random weights: whatever the mask is, there is a row with a status, and numbers only where it allows them."""
    call(ready, tmp_path / "out", "--target", "rfs")
    for patient in document(tmp_path / "out")["patients"]:
        told = patient["predicted"]["rfs"]
        assert (told["risk"] is None) == (told["status"] == "not_predicted")
    assert (tmp_path / "out" / "masks" / "N-1.nii.gz").exists()


def test_new_patients_are_segmented_as_those_who_were_measured(ready, tmp_path, monkeypatch):
    """The features are of a configuration that is not the plan's default; -c takes another one, and says so."""
    measured = FeatureTable(pd.DataFrame(), configuration="3d_lowres")
    monkeypatch.setattr(prediction, "_training_features", lambda workspace: measured)
    with pytest.raises(ModelError, match="no fold of 3d_lowres is finished"):
        call(ready, tmp_path / "out")
    a_mask(monkeypatch, {"N-0": head(10)[2], "N-1": head(11)[2]})
    notes = call(ready, tmp_path / "out", "-c", CONFIGURATION)["notes"]
    assert f"the masks are by networks of {CONFIGURATION}, the models were fitted on features of 3d_lowres masks" in notes


def test_no_tumour_found_is_not_predicted(ready, tmp_path, monkeypatch, capsys):
    a_mask(monkeypatch, {"N-0": head(10)[2] * 0, "N-1": head(11)[2]})
    call(ready, tmp_path / "out")
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["predicted_rfs_status"] == first["predicted_hpv_status"] == "not_predicted"
    assert first["predicted_rfs_risk"] == first["predicted_hpv_probability"] == first["predicted_rfs_survival_730d"] == ""
    assert "no tumour was found" in first["predicted_rfs_reasons"]
    assert second["predicted_rfs_risk"] != ""
    assert "not predicted" in capsys.readouterr().out


def test_pet_that_is_not_in_suv_is_not_predicted(ready, tmp_path, monkeypatch, document):
    a_mask(monkeypatch, {"B-0": head(10)[2]})
    ct, pet, _ = head(10)
    ready.dataset.write_images("B-0", ct, pet * 5000, folder="becquerels")
    call(ready, tmp_path / "out", images="becquerels")
    written = document(tmp_path / "out")
    assert any("no row for B-0" in note for note in written["notes"])
    patient = written["patients"][0]
    assert patient["flags"] == ["pet_not_suv"]
    assert patient["predicted"]["rfs"]["status"] == "not_predicted"
    assert "not in SUV" in patient["predicted"]["rfs"]["reasons"][0]


def test_a_missing_age_degrades(ready, tmp_path, monkeypatch, document):
    a_mask(monkeypatch, {"N-0": head(10)[2], "N-1": head(11)[2]})
    table = tmp_path / "other.csv"
    table.write_text("patient,Age\nN-0,\nN-1,200\n")
    call(ready, tmp_path / "out", "--clinical", table)
    first, second = document(tmp_path / "out")["patients"]
    assert first["predicted"]["rfs"]["status"] == "degraded"
    assert "Age is missing" in first["predicted"]["rfs"]["reasons"][0]
    assert second["predicted"]["rfs"]["status"] == "not_predicted"
    assert "Age is 200" in second["predicted"]["rfs"]["reasons"][0]


def test_one_broken_case_does_not_stop_the_other(ready, tmp_path, monkeypatch, document):
    a_mask(monkeypatch, {"N-0": head(10)[2]})
    tried: list[str] = []
    read = CaseList._read
    monkeypatch.setattr(CaseList, "_read", lambda self, case: (tried.append(case.name), read(self, case))[1])
    folder = ready.dataset.folder / "broken"
    shutil.copytree(ready.dataset.folder / "imagesTs", folder)
    (folder / "N-1_0001.nii.gz").write_bytes(b"no image")
    write_image(folder / "N-2_0000.nii.gz", head(0)[0], ready.dataset.geometry)  # has no PET
    with pytest.raises(CasesFailed) as caught:
        call(ready, tmp_path / "out", images="broken")
    assert caught.value.exit_status == 3
    assert len(caught.value.failures) == 2
    assert sorted(tried) == ["N-0", "N-1"], "a failed case is not tried again to learn what is wrong with it"
    statuses = {p["case"]: p["predicted"]["rfs"]["status"] for p in document(tmp_path / "out")["patients"]}
    assert statuses == {"N-0": "ok", "N-1": "not_predicted", "N-2": "not_predicted"}


def test_a_bad_table_is_told_before_segmentation(ready, tmp_path):
    table = tmp_path / "bad.csv"
    table.write_text("case,Age\nN-0,12/03/1960\nN-1,55\n")
    with pytest.raises(CohortError, match="row 2"):
        call(ready, tmp_path / "out", "--clinical", table)
    assert not (tmp_path / "out").exists()


def test_nothing_fitted_says_how_to_fit(ready, tmp_path):
    with pytest.raises(PrognosisModelError, match="prognosis fit --target os"):
        call(ready, tmp_path / "out", "--target", "os")


def test_the_result_does_not_depend_on_who_else_is_predicted(ready, tmp_path, monkeypatch, document):
    a_mask(monkeypatch, {"N-0": head(10)[2], "N-1": head(11)[2]})
    call(ready, tmp_path / "both")
    alone = ready.dataset.folder / "alone"
    alone.mkdir(exist_ok=True)
    for path in (ready.dataset.folder / "imagesTs").glob("N-1_*"):
        shutil.copy(path, alone)
    call(ready, tmp_path / "one", images="alone")
    assert document(tmp_path / "one")["patients"][0]["predicted"] == document(tmp_path / "both")["patients"][1]["predicted"]


def test_times_are_asked_for_and_told_once(ready):
    models = prediction.read_models(ready.dataset.work)
    assert prediction._times(models, [90.0, 30.0, 90.0]) == (30.0, 90.0)
    assert prediction._times({"hpv": models["hpv"]}, None) == ()
