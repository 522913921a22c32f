import csv
import json

import numpy as np
import pytest

from autoseg.commands import convert
from autoseg.errors import DatasetError, ResourceError
from autoseg.images import read_header, read_image, read_mask
from autoseg.importers.cohort import write
from autoseg.importers.cohort.write import write_cohort

PATIENTS = 4


def rows(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def read_all(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort") / "phantom", patients=PATIENTS, new_patients=2, seed=3, workers=0)


def test_layout_of_hecktor_2025(cohort):
    training, new = cohort.folder / "hecktor2025_training", cohort.folder / "hecktor2025_new"
    names = cohort.patients.names
    assert sorted(path.name for path in (training / "Task 1").iterdir()) == sorted(names)
    for name in names:
        files = sorted(path.name for path in (training / "Task 1" / name).iterdir())
        assert files == sorted([f"{name}.nii.gz", f"{name}__CT.nii.gz", f"{name}__PT.nii.gz"])
        ct, pet = (read_header(training / "Task 1" / name / f"{name}__{kind}.nii.gz").geometry for kind in ("CT", "PT"))
        mask = read_mask(training / "Task 1" / name / f"{name}.nii.gz")
        assert mask.geometry.shape == ct.shape != pet.shape
        assert 1 in mask.array
    tables = [f"HECKTOR_2025_Training_Task_{task}.csv" for task in (1, 2, 3)]
    assert sorted(path.name for path in training.iterdir()) == [*tables, "Task 1"]
    assert [len(list(path.iterdir())) for path in (new / "Task 1").iterdir()] == [2, 2]
    assert "Relapse" not in rows(new / "HECKTOR_2025_Test_Task_1.csv")[0]
    assert [row["PatientID"] for row in rows(new / "HECKTOR_2025_Test_Task_1.csv")] == list(cohort.new)


def test_tables_tell_what_was_simulated(cohort):
    people = cohort.patients
    tables = {task: rows(cohort.folder / f"hecktor2025_training/HECKTOR_2025_Training_Task_{task}.csv") for task in (1, 2, 3)}
    assert [row["PatientID"] for row in tables[1]] == people.names
    assert not {"Relapse", "RFS", "HPV Status"} & set(tables[1][0])
    index = {name: row for row, name in enumerate(people.names)}
    for row in tables[1]:
        i = index[row["PatientID"]]
        assert (row["CenterID"], int(row["Age"])) == (str(people.centre[i] + 1), people.age[i])
        assert row["Tobacco Consumption"] == ("" if people.missing["habits"][i] else str(int(people.tobacco[i])))
        assert row["M-stage"] in ("", "M0", "M1")
    assert {row["PatientID"]: (row["Relapse"], row["RFS"]) for row in tables[2]} == {
        name: (str(int(people.event[i])), str(people.time_days[i])) for name, i in index.items() if not people.missing["outcome"][i]
    }
    assert {row["PatientID"]: row["HPV Status"] for row in tables[3]} == {
        name: str(int(people.hpv[i])) for name, i in index.items() if not people.missing["hpv"][i]
    }


def test_the_last_new_patient_has_no_tumour(cohort):
    assert cohort.without_tumour == cohort.new[-1]
    assert f"{cohort.new[-1]} without any tumour" in cohort.text()
    assert not set(cohort.new) & set(cohort.patients.names)


def test_a_patient_does_not_depend_on_the_others_or_on_workers(cohort, tmp_path):
    other = write_cohort(tmp_path / "other", patients=2, new_patients=1, seed=3, workers=2)
    here, there = (read_all(folder) for folder in (cohort.folder, other.folder))
    images = [name for name in there if name.endswith(".nii.gz")]
    assert len(images) == 2 * 3 + 2
    for name in images:
        assert there[name] == here[name], name


def test_truth_beside_it(cohort):
    table = rows(cohort.folder / "truth.csv")
    document = json.loads((cohort.folder / "truth.json").read_text())
    assert [row["patient"] for row in table] == cohort.patients.names
    assert [float(row["log_hazard"]) for row in table] == cohort.patients.log_hazard.tolist()
    assert document == json.loads(json.dumps(cohort.truth))
    assert document["schema"] == "autoseg-truth/1"
    assert document["population"]["patients"] == 20_000


def test_the_importer_reads_it_like_real_data(cohort, tmp_path):
    from autoseg.dataset import Dataset
    from autoseg.importers.hecktor import import_hecktor

    result = import_hecktor(
        cohort.folder / "hecktor2025_training", tmp_path / "set", new=cohort.folder / "hecktor2025_new", onto="CT", workers=0
    )
    assert not result.failures
    dataset = Dataset.open(tmp_path / "set")
    assert dataset.labels == {"background": 0, "GTVp": 1, "GTVn": 2}
    truth = {row["patient"]: row["centre"] for row in rows(cohort.folder / "truth.csv")}
    assert {case.patient: case.centre for case in dataset.cases} == truth
    # what is hot on the CT's grid is hot where the tumour is
    for case in dataset.cases:
        pet, mask = read_image(case.images[1].path).array, read_mask(case.label).array
        assert pet[mask == 1].mean() > 3 * np.median(pet[pet > 0.1])


def test_tables_alone(tmp_path):
    from prognosis.features.table import FeatureTable

    written = write_cohort(tmp_path / "tables", patients=200, seed=3, table_only=True)
    folder = written.folder
    assert sorted(path.name for path in folder.iterdir()) == ["cases.csv", "features.csv", "features.json", "truth.csv", "truth.json"]
    cases, truth = rows(folder / "cases.csv"), rows(folder / "truth.csv")
    assert [row["case"] for row in cases] == [row["patient"] for row in cases] == [row["patient"] for row in truth]
    assert [row["centre"] for row in cases] == [row["centre"] for row in truth]
    assert all(row["Tobacco Consumption"] == "" for row in cases if row["centre"] == "SUD")
    for row, people in zip(cases, truth, strict=True):
        assert row["HPV Status"] in ("", people["hpv"])
        assert (row["Relapse"], row["RFS"]) in (("", ""), (people["event"], people["time_days"]))
    table = FeatureTable.read(folder / "features.csv")
    assert table.patients == tuple(row["patient"] for row in cases)
    assert table.segmentation_saw_centre is None, "no network drew a mask, so nothing may be said of what it saw"
    nodeless = table.frame["node_count"] == 0
    assert {patient for patient, flags in table.flags.items() if flags == ("no_nodes",)} == set(table.frame.index[nodeless])
    assert write_cohort(tmp_path / "again", patients=200, seed=3, table_only=True).truth == written.truth
    assert read_all(tmp_path / "again") == read_all(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, "1 patient"),
        ({"new_patients": -1}, "0 new patients"),
        ({"seed": -1}, "seed 0 or more, found 30, 0 and -1"),
        ({"centres": 11}, "--centres 11"),
        ({"size": "huge"}, "demo and full"),
        ({"table_only": True, "new_patients": 1}, "tables alone has none"),
    ],
)
def test_wrong_wishes_leave_nothing(tmp_path, arguments, message):
    with pytest.raises(DatasetError, match=message):
        write_cohort(tmp_path / "cohort", **arguments)
    assert not (tmp_path / "cohort").exists()


def test_a_cohort_is_not_written_over_another(cohort):
    before = read_all(cohort.folder)
    with pytest.raises(DatasetError, match="holds hecktor2025_training already"):
        write_cohort(cohort.folder, patients=1, table_only=True)
    assert read_all(cohort.folder) == before


def test_a_failure_half_way_leaves_no_images(tmp_path, monkeypatch):
    whole = write.image_patient
    done = []

    def fail_at_the_second(*arguments):
        done.append(arguments)
        if len(done) == 2:
            raise ResourceError("the disk is full")
        return whole(*arguments)

    monkeypatch.setattr(write, "image_patient", fail_at_the_second)
    with pytest.raises(ResourceError, match="the disk is full"):
        write_cohort(tmp_path / "cohort", patients=3, workers=0)
    assert list((tmp_path / "cohort").iterdir()) == []


def test_too_small_a_disk_is_found_before(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "DISK_BYTES_PER_VOXEL", 1e12)
    with pytest.raises(ResourceError, match="3 patients of size demo need about .* GB"):
        write_cohort(tmp_path / "cohort", patients=3, workers=0)
    assert not (tmp_path / "cohort").exists()


def test_command(tmp_path, capsys):
    result = tmp_path / "result.json"
    arguments = ["phantom", str(tmp_path / "set"), "--patients", "60", "--centres", "2", "--seed", "9", "--table-only", "--no-signal"]
    with pytest.raises(SystemExit) as ended:
        convert.main([*arguments, "--json", str(result)])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "60 patients (NOR 34, SUD 26), seed 9" in out
    assert "C-index to day 730: observed ones only" in out
    found = json.loads(result.read_text())["result"]
    assert found["truth"]["rows"]["c_index"]["log_hazard"]["pooled"]["value"] == 0.5
    with pytest.raises(SystemExit) as ended:
        convert.main(arguments)
    assert ended.value.code == 2
    assert "holds" in capsys.readouterr().err
