"""The container's entry point on the platform's folders: what it writes, and what it does where something is wrong."""

import json
import math
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser

import numpy as np
import pytest
import SimpleITK as sitk
from challenge_input import Input
from fitted import COLUMNS, play_network, training_frame
from segmented import SHAPE, SPACING, head
from tiny import ONE_THREAD

from autoseg import files
from autoseg.commands.convert import main as convert
from prognosis.challenge.inputs import read_record
from prognosis.commands import challenge as command
from prognosis.commands import predict
from prognosis.errors import OutputsMissing, TargetError
from prognosis.features.case import case_features
from prognosis.outcomes import Labels
from prognosis.staging.cohort import STAGES
from prognosis.staging.model import fit_stages, write_stage_model
from prognosis.validation.part import Part

MASK = {"2025": "images/tumor-lymph-node-segmentation/output.mha", "2026": "images/head-neck-tumor-segmentation/output.mha"}

NO_NETWORK = """
import socket, sys
def refused(*arguments): raise SystemExit("the network was asked for")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refused
from prognosis.commands.main import main
main(sys.argv[1:])
"""


def call(trained, source, out, *arguments, edition="2025"):
    options = ArgumentParser()
    command.add(options.add_subparsers())
    common = ["--edition", edition, "--input", source, "--output", out, "--models", trained.models, "--no-mirroring"]
    return command.call(options.parse_args(["challenge", *map(str, [*common, *arguments])]))


def value(path):
    return json.loads(path.read_text())


def a_mask(monkeypatch, mask):
    play_network(monkeypatch, lambda case: mask)


@pytest.mark.parametrize("edition", MASK)
def test_as_a_process_without_network(trained, patient, tmp_path, edition):
    """From real files to real files; 2026's stages have no model here, and none is made up."""
    out, told = tmp_path / "output", tmp_path / "told.json"
    arguments = ["--edition", edition, "--input", patient.folder, "--output", out, "--models", trained.models, "--sense", "risk"]
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, "challenge", *map(str, arguments), "--json", str(told)],
        capture_output=True,
        text=True,
        env=os.environ | ONE_THREAD,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == (0 if edition == "2025" else 3), done.stderr
    assert "not a medical device" in done.stdout
    mask, ct = sitk.ReadImage(str(out / MASK[edition])), sitk.ReadImage(str(patient.ct))
    assert mask.GetPixelID() == sitk.sitkUInt8
    for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(mask, of)() == getattr(ct, of)()
    assert set(np.unique(sitk.GetArrayFromImage(mask))) <= {0, 1, 2}
    assert math.isfinite(value(out / "rfs.json"))
    files_written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    outcome = {"hpv-status.json"} if edition == "2025" else set()
    assert files_written == {MASK[edition], "rfs.json"} | outcome
    if edition == "2025":
        assert value(out / "hpv-status.json") in (True, False)
    else:
        assert "t-stage: missing" in done.stderr
        assert "without one no stage is guessed" in done.stderr
        assert value(told)["result"]["outputs"]["n-stage"]["file"] is None


def test_it_says_what_importing_and_predicting_say(trained, patient, tmp_path, capsys):
    """The same patient as HECKTOR hands out its training data, through autoseg_convert hecktor and prognosis predict."""
    place = tmp_path / "hecktor2026_training" / "N-7"
    for source, role in ((patient.ct, "CT"), (patient.pet, "PT")):
        place.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.ReadImage(str(source)), str(place / f"N-7__{role}.nii.gz"))
    (place.parent / "HECKTOR_2026_Test_Task.csv").write_text("PatientID,CenterID,Age\nN-7,5,61\n")
    with pytest.raises(SystemExit) as ended:
        convert(["hecktor", str(place.parent), str(tmp_path / "set"), "--workers", "0"])
    assert ended.value.code == 0
    options = ArgumentParser()
    predict.add(options.add_subparsers())
    common = ["-d", trained.dataset.folder, "-i", tmp_path / "set" / "imagesTs", "-o", tmp_path / "predicted", "--no-mirroring"]
    known = predict.call(options.parse_args(["predict", *map(str, [*common, "--workers", 0])]))["patients"][0]["predicted"]
    call(trained, patient.folder, tmp_path / "out", "--sense", "risk")
    assert known["rfs"]["risk"] is not None
    assert value(tmp_path / "out" / "rfs.json") == known["rfs"]["risk"]
    assert value(tmp_path / "out" / "hpv-status.json") is known["hpv"]["positive"]
    mask, other = (sitk.ReadImage(str(path)) for path in (tmp_path / "predicted/masks/N-7.nii.gz", tmp_path / "out" / MASK["2025"]))
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(other))
    assert sitk.GetArrayFromImage(mask).any()


def test_a_time_ranks_the_other_way_round_than_a_risk(trained, tmp_path, monkeypatch):
    told = {"risk": [], "time": []}
    for index, age in enumerate((45, 61, 75)):
        source = Input(tmp_path / f"in{index}", {"Age": age})
        a_mask(monkeypatch, head(10)[2])
        for sense, values in told.items():
            call(trained, source.folder, tmp_path / "out", "--sense", sense, "--outputs", "rfs")
            values.append(value(tmp_path / "out" / "rfs.json"))
    order = np.argsort(told["risk"])
    assert len(set(told["risk"])) == 3
    assert order.tolist() == np.argsort(told["time"])[::-1].tolist()
    assert all(0 < days < 1500 for days in told["time"]), "within the training patients' follow-up"


def test_another_grid_and_the_way_back(trained, patient, tmp_path, monkeypatch):
    """On the PET's grid: the mask has that grid's shape inside, and the CT's when it is written."""
    models = tmp_path / "models"
    shutil.copytree(trained.models, models)
    files.write_json(models / "import.json", {"schema": "autoseg-import/1", "onto": "PT"})
    trained = type(trained)(models=models, dataset=trained.dataset)
    small = np.zeros((SHAPE[0] - 1, SHAPE[1] // 2, SHAPE[2] // 2), np.uint8)
    small[2:5, 2:4, 2:4] = 1
    a_mask(monkeypatch, small)
    call(trained, patient.folder, tmp_path / "out", "--outputs", "mask")
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / MASK["2025"])))
    assert written.shape == SHAPE
    expected = np.zeros(SHAPE, np.uint8)
    # the PET begins one slice on; its voxels lie at 8 and 12 mm, so that 8, 10 and 12 mm are tumour and 6 and 14 mm half of it
    expected[3:6, 4:7, 4:7] = 1
    assert np.array_equal(written, expected)
    with pytest.raises(OutputsMissing, match=r"--onto CT: .*import.json says that the networks were trained on images brought onto PT"):
        call(trained, patient.folder, tmp_path / "out", "--outputs", "mask", "--onto", "CT")


def test_stages_where_there_are_models(trained, patient, tmp_path, monkeypatch):
    """Of 2026. Without a tumour a stage is told only where a fallback is asked for, as what it is."""
    models = with_stages(trained, tmp_path / "models")
    a_mask(monkeypatch, head(10)[2])
    told = call(models, patient.folder, tmp_path / "out", "--sense", "time", edition="2026")["outputs"]
    assert value(tmp_path / "out" / "t-stage.json") == told["t-stage"]["value"] == "T4", "as its volume says"
    assert value(tmp_path / "out" / "n-stage.json") == "N3"
    a_mask(monkeypatch, np.zeros(SHAPE, np.uint8))
    found = missing(models, patient.folder, tmp_path / "out", "--sense", "time", edition="2026")
    assert set(found) == {"t-stage", "n-stage", "rfs"}
    assert "no tumour was found" in found["t-stage"]
    assert not (tmp_path / "out" / "t-stage.json").exists()
    told = call(models, patient.folder, tmp_path / "out", "--sense", "time", "--fallback", edition="2026")["outputs"]
    assert all(told[name]["fallback"] for name in ("t-stage", "n-stage", "rfs"))
    assert value(tmp_path / "out" / "t-stage.json") in STAGES["t-stage"].classes
    assert value(tmp_path / "out" / "n-stage.json") in STAGES["n-stage"].classes


def with_stages(trained, models):
    """Models of stages by volume, of which the patient's is among the largest."""
    shutil.copytree(trained.models, models)
    frame, kinds = training_frame(), dict.fromkeys(COLUMNS, "numeric")
    volume = case_features(*head(10), SPACING)["volume_total_ml"]
    limits = np.array([0.2, 0.4, 0.6]) * volume
    rng = np.random.default_rng(0)
    frame["volume_total_ml"] = rng.uniform(0.02, 1.1, len(frame)) * volume
    part = Part(
        frame, kinds, dict.fromkeys(COLUMNS, "image"), Labels(frame["Age"] > 0), np.array([""] * len(frame), dtype=object), "binary"
    )
    for name, stage in STAGES.items():
        classes = np.searchsorted(limits, frame["volume_total_ml"])
        model = fit_stages(part, classes, stage.classes, COLUMNS, "random", (0,))
        write_stage_model(models / "prognosis" / name / "stage.json", model, {})
    return type(trained)(models=models, dataset=trained.dataset)


def test_a_zipped_model(trained, patient, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(trained.models, models)
    shutil.make_archive(models / "segmentation", "zip", models / "segmentation")
    shutil.rmtree(models / "segmentation")
    call(trained, patient.folder, tmp_path / "one", "--outputs", "mask")
    call(type(trained)(models=models, dataset=trained.dataset), patient.folder, tmp_path / "two", "--outputs", "mask")
    assert (tmp_path / "one" / MASK["2025"]).read_bytes() == (tmp_path / "two" / MASK["2025"]).read_bytes()


# --- what is wrong


def missing(trained, source, out, *arguments, **keywords):
    """Output -> why it is missing."""
    with pytest.raises(OutputsMissing) as caught:
        call(trained, source, out, *arguments, **keywords)
    assert caught.value.exit_status == 3
    return {failure.split(":")[0]: failure for failure in caught.value.failures}


def test_no_tumour_leaves_an_empty_mask_and_no_risk_until_a_fallback_is_asked_for(trained, patient, tmp_path, monkeypatch):
    a_mask(monkeypatch, np.zeros(SHAPE, np.uint8))
    found = missing(trained, patient.folder, tmp_path / "out", "--sense", "risk")
    assert set(found) == {"rfs", "hpv"}
    assert "no tumour was found" in found["rfs"]
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / MASK["2025"]))).any()
    assert not (tmp_path / "out" / "rfs.json").exists()
    told = call(trained, patient.folder, tmp_path / "out", "--sense", "risk", "--fallback")["outputs"]
    assert told["rfs"]["fallback"]
    assert told["hpv"]["fallback"]
    assert value(tmp_path / "out" / "rfs.json") == told["rfs"]["value"]
    assert "no tumour was found" in told["rfs"]["reasons"][0]


def test_a_broken_pet_loses_what_needs_it_and_says_so(trained, patient, tmp_path):
    patient.pet.write_bytes(b"no image")
    found = missing(trained, patient.folder, tmp_path / "out", "--sense", "risk")
    assert set(found) == {"mask", "rfs", "hpv"}
    assert "9bc0-57.mha" in found["mask"]
    assert "there is no mask to measure" in found["rfs"]


def test_one_output_is_lost_and_the_others_are_written(trained, patient, tmp_path, monkeypatch):
    a_mask(monkeypatch, head(10)[2])
    models = tmp_path / "models"
    shutil.copytree(trained.models, models)
    (models / "prognosis" / "hpv" / "model.json").write_text("{}")
    trained = type(trained)(models=models, dataset=trained.dataset)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "hpv-status.json").write_text("true")
    found = missing(trained, patient.folder, tmp_path / "out", "--sense", "risk")
    assert set(found) == {"hpv"}
    assert not (tmp_path / "out" / "hpv-status.json").exists(), "what an earlier run left is not this patient's"
    assert (tmp_path / "out" / "rfs.json").exists()
    shutil.rmtree(models / "segmentation")
    assert set(missing(trained, patient.folder, tmp_path / "out", "--sense", "risk")) == {"mask", "rfs", "hpv"}


@pytest.mark.parametrize(
    ("ehr", "note"),
    [
        ('{"Age": 61, "Gender": 1,}', "a comma after the last field is passed over"),
        ('[{"Age": 61}]', None),
        ('{"CenterID": 3, "Age": 61, "HPV Status": null}', "not known: HPV Status"),
        ('{"Age": 61, "Gender": NaN, "Alcohol Consumption": Infinity}', "not known: Gender, Alcohol Consumption"),
    ],
)
def test_records_as_they_come(trained, patient, tmp_path, monkeypatch, ehr, note):
    a_mask(monkeypatch, head(10)[2])
    call(trained, patient.folder, tmp_path / "whole", "--sense", "risk", "--outputs", "rfs")
    patient.record.write_text(ehr)
    told = call(trained, patient.folder, tmp_path / "out", "--sense", "risk", "--outputs", "rfs")
    assert value(tmp_path / "out" / "rfs.json") == value(tmp_path / "whole" / "rfs.json")
    assert "CenterID" not in read_record(patient.record).values
    assert note is None or any(note in one for one in told["notes"]), told["notes"]


@pytest.mark.parametrize("ehr", [None, "{", "7", '{"Gender": 1}', '{"Age": 61, "a name \\u0000 with a zero byte": 1}'])
def test_without_an_age_the_images_still_speak(trained, patient, tmp_path, monkeypatch, ehr):
    """The model knows Age: without it the risk is told, with the reason."""
    a_mask(monkeypatch, head(10)[2])
    patient.record.unlink() if ehr is None else patient.record.write_text(ehr)
    told = call(trained, patient.folder, tmp_path / "out", "--sense", "risk", "--outputs", "rfs", "mask")
    assert "Age is missing" in told["outputs"]["rfs"]["reasons"][0]
    assert math.isfinite(told["outputs"]["rfs"]["value"])


def test_a_cell_that_cannot_be_meant(trained, patient, tmp_path, monkeypatch):
    a_mask(monkeypatch, head(10)[2])
    patient.record.write_text('{"Age": "12/03/1960"}')
    assert "Age" in missing(trained, patient.folder, tmp_path / "out", "--sense", "risk", "--outputs", "rfs")["rfs"]
    assert call(trained, patient.folder, tmp_path / "out", "--sense", "risk", "--outputs", "rfs", "--fallback")["outputs"]["rfs"][
        "fallback"
    ]


def test_voxels_that_are_not_finite_are_replaced_before_they_spread(trained, patient, tmp_path, monkeypatch):
    pet = sitk.ReadImage(str(patient.pet))
    array = sitk.GetArrayFromImage(pet)
    array[0, 0, 0] = np.nan
    broken = sitk.GetImageFromArray(array)
    broken.CopyInformation(pet)
    sitk.WriteImage(broken, str(patient.pet))
    a_mask(monkeypatch, head(10)[2])
    told = call(trained, patient.folder, tmp_path / "out", "--sense", "risk")
    assert any("1 voxels that were NaN or infinite were replaced" in note for note in told["notes"])


def test_models_that_do_not_fit_together_are_told_before_anything_is_segmented(trained, patient, tmp_path, monkeypatch):
    models = tmp_path / "models"
    shutil.copytree(trained.models, models)
    (models / "cohort.toml").write_text("[columns")
    play_network(monkeypatch, lambda case: pytest.fail("segmented"))
    with pytest.raises(TargetError, match=r"cohort\.toml"):
        call(type(trained)(models=models, dataset=trained.dataset), patient.folder, tmp_path / "out", "--sense", "risk")


def test_an_earlier_patients_outputs_are_gone_however_a_run_ends(trained, patient, tmp_path, monkeypatch):
    for name in ("rfs.json", "hpv-status.json", MASK["2025"]):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("another patient's")

    def killed(case):
        raise KeyboardInterrupt

    play_network(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        call(trained, patient.folder, tmp_path / "out", "--sense", "risk")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say with --sense what it is to hold"),
        (("--sense", "risk", "--outputs", "t-stage"), "HECKTOR 2025 asks for mask, rfs, hpv"),
        (("--sense", "risk", "--input", "absent"), "there is no such input folder"),
        (("--sense", "risk", "--models", "absent"), "holds no models"),
    ],
)
def test_what_cannot_be_meant_writes_nothing(trained, patient, tmp_path, arguments, message, capsys):
    from prognosis.commands.main import main

    common = ["--edition", "2025", "--input", patient.folder, "--output", tmp_path / "out", "--models", trained.models]
    with pytest.raises(SystemExit) as ended:
        main(["challenge", *map(str, [*common, *arguments])])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_images_are_no_patient(trained, patient, tmp_path):
    shutil.copy(patient.ct, patient.ct.with_name("second.mha"))
    found = missing(trained, patient.folder, tmp_path / "out", "--outputs", "mask")
    assert "must hold one image" in found["mask"]
    assert "second.mha" in found["mask"]
