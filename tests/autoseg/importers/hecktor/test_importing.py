"""From a HECKTOR folder of real files to a dataset, again after something changed, and with everything that can be wrong."""

import json
import re

import numpy as np
import pytest
from tiny_hecktor import CT_GRID, LEVEL, PT_GRID, SLOPE, Hecktor, positions, write

from autoseg.commands import convert
from autoseg.dataset import Dataset, check_case, find_cases
from autoseg.dataset.table import read_table
from autoseg.errors import DatasetError, LockError, ResourceError, WorkerError
from autoseg.images import read_image, read_mask
from autoseg.importers.hecktor import case as case_module
from autoseg.importers.hecktor import import_hecktor, importing
from autoseg.locks import FoldLock


@pytest.fixture
def out(tmp_path):
    return tmp_path / "Dataset"


def go(hecktor, out, **options):
    return import_hecktor(hecktor.folder, out, workers=0, **options)


def states(folder):
    """Time of change of each case's files; the tables and documents above them are written by every run."""
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file() and p.parent != folder}


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def note(result, part):
    found = [text for text in result.notes if part in text]
    assert len(found) == 1, result.notes
    return found[0]


def image_of(folder, case, channel, split="Tr"):
    return read_image(folder / f"images{split}" / f"{case}_{channel:04d}.nii.gz")


# --- what comes out


def test_a_dataset_that_can_be_planned(hecktor, out):
    for patient in ("CHUM-001", "CHUM-002", "MDA-001"):
        hecktor.add(patient)
    hecktor.add("MDA-002", task=2, within="MDA_002")
    hecktor.table({"PatientID": "CHUM-001", "CenterID": "1", "Age": "61", "Relapse": "0"}, {"PatientID": "MDA_001", "CenterID": "5"})
    hecktor.table({"PatientID": "CHUM-002", "CenterID": "1.0", "HPV Status": "1"}, {"PatientID": "CHUM-009", "CenterID": "1"}, task=3)
    result = go(hecktor, out)
    dataset = Dataset.open(out)
    assert (dataset.channels, dataset.labels) == (("CT", "PET"), {"background": 0, "GTVp": 1, "GTVn": 2})
    assert [(case.name, case.patient, case.centre) for case in dataset.cases] == [
        ("CHUM-001", "CHUM-001", "CHUM"),
        ("CHUM-002", "CHUM-002", "CHUM"),
        ("MDA-001", "MDA-001", "MDA"),
        ("MDA-002", "MDA-002", "MDA"),
    ]
    for case in dataset.cases:
        assert check_case(case, dataset).labels == {0: 6 * 10 * 12 - 24, 1: 18, 2: 6}
    rows = read_table(out / "cases.csv")
    assert rows["CHUM-001"].extra == {"CenterID": "1", "Age": "61", "Relapse": "0", "RFS": "", "HPV Status": ""}
    assert rows["CHUM-002"].extra["CenterID"] == "1.0"
    assert set(rows["MDA-002"].extra.values()) == {""}
    assert set(rows) == {"CHUM-001", "CHUM-002", "CHUM-009", "MDA-001", "MDA-002"}, "who has no images has a row all the same"
    assert not (out / "casesTs.csv").exists()
    assert (result.training, result.new, result.imported) == (("CHUM-001", "CHUM-002", "MDA-001", "MDA-002"), (), 4)
    assert result.centres == {"CHUM": 2, "MDA": 2}
    assert "CHUM-009" in note(result, "no images")
    assert "MDA-002" in note(result, "no row in the clinical tables")
    assert result.failures == ()


def test_the_pet_lies_where_the_ct_does(hecktor, out):
    hecktor.add("A-1")
    result = go(hecktor, out)
    ct, pt, mask = image_of(out, "A-1", 0), image_of(out, "A-1", 1), read_mask(out / "labelsTr" / "A-1.nii.gz")
    assert (out / "imagesTr" / "A-1_0000.nii.gz").read_bytes() == hecktor.path("A-1", "CT").read_bytes()
    assert np.array_equal(ct.array, hecktor.ct("A-1"))
    assert np.array_equal(mask.array, hecktor.mask())
    at = positions(CT_GRID)
    first, last = (positions(PT_GRID)[i, i, i] for i in (0, -1))
    half = np.array(PT_GRID["spacing"][::-1]) / 2
    between = ((at >= first) & (at <= last)).all(-1)
    beyond = ((at < first - half) | (at > last + half)).any(-1)
    assert between.any()
    assert beyond.any()
    np.testing.assert_allclose(pt.array[between], LEVEL + at[between] @ SLOPE, atol=1e-5)
    assert (pt.array[beyond] == 0).all()
    assert f"{beyond.mean():.1%} in A-1" in note(result, "field of view, where PET is 0: ")


def test_onto_the_pet_and_onto_a_spacing(hecktor, out, tmp_path):
    hecktor.add("A-1")
    go(hecktor, out, onto="PT")
    ct, pt, mask = image_of(out, "A-1", 0), image_of(out, "A-1", 1), read_mask(out / "labelsTr" / "A-1.nii.gz")
    assert ct.geometry == pt.geometry == mask.geometry
    assert np.array_equal(pt.array, hecktor.pt())
    assert ct.array.min() == -1024
    assert set(np.unique(mask.array)) <= {0, 1, 2}
    go(hecktor, tmp_path / "Fine", onto="1.5,1,1")
    fine = read_mask(tmp_path / "Fine" / "labelsTr" / "A-1.nii.gz")
    assert fine.array.shape == (12, 10, 12)
    volumes = np.bincount(fine.array.ravel())[1:] * 1.5, np.bincount(hecktor.mask().ravel())[1:] * 3.0
    np.testing.assert_allclose(*volumes, rtol=0.1)


def test_the_test_set_of_2022_is_not_trained_on_though_it_has_masks(tmp_path, out):
    """imagesTr and imagesTs in one folder, with labelsTs beside: nothing of the latter is where something learns."""
    source = Hecktor(tmp_path / "hecktor2022")
    for patient, split in (("CHUM-001", "Tr"), ("USZ-001", "Ts")):
        for role, array, grid in (("__CT", source.ct(patient), CT_GRID), ("__PT", source.pt(), PT_GRID), ("", source.mask(), CT_GRID)):
            write(source.folder / f"{'images' if role else 'labels'}{split}" / f"{patient}{role}.nii.gz", array, grid)
    source.table(
        {"PatientID": "CHUM-001", "CenterID": "1", "Relapse": "1"},
        {"PatientID": "USZ-001", "CenterID": "9", "Relapse": "0"},
        name="hecktor2022_clinical_info.csv",
    )
    result = go(source, out)
    assert (result.training, result.new) == (("CHUM-001",), ("USZ-001",))
    assert names(out / "labelsTr") == ["CHUM-001.nii.gz"]
    assert names(out / "labelsTs") == ["USZ-001.nii.gz"]
    assert (list(read_table(out / "cases.csv")), list(read_table(out / "casesTs.csv"))) == (["CHUM-001"], ["USZ-001"])
    assert note(result, "to be tested on").endswith("casesTs.csv alone: USZ-001")


def test_new_patients(hecktor, out, tmp_path):
    hecktor.add("A-1")
    hecktor.add("A-2", roles=("CT", "PT"))
    hecktor.table({"PatientID": "A-1", "CenterID": "1", "Relapse": "1"}, {"PatientID": "A-2", "CenterID": "1", "Relapse": "0"})
    new = Hecktor(tmp_path / "hecktor2025_new")
    new.add("B-7", roles=("CT", "PT"))
    new.table({"PatientID": "B-7", "CenterID": "4", "Age": "50"}, columns=("PatientID", "CenterID", "Age", "T-stage"))
    result = go(hecktor, out, new=new.folder)
    assert (result.training, result.new) == (("A-1",), ("A-2", "B-7"))
    cases, failures, notes = find_cases(out / "imagesTs", ("CT", "PET"))
    assert ([case.name for case in cases], failures, notes) == (["A-2", "B-7"], (), ())
    rows = read_table(out / "casesTs.csv")
    assert [(row.case, row.centre, row.extra["Age"], row.extra["Relapse"]) for row in rows.values()] == [
        ("A-2", "A", "", "0"),
        ("B-7", "B", "50", ""),
    ]
    assert set(read_table(out / "cases.csv")) == {"A-1", "A-2"}
    assert "A-2" in note(result, "have no mask")
    assert [case.name for case in Dataset.open(out).cases] == ["A-1"]
    assert go(hecktor, out).new == ("A-2", "B-7"), "a second run knows where the new ones were"
    new.add("B-7")
    assert go(hecktor, out, new=new.folder).imported == 1
    assert np.array_equal(read_mask(out / "labelsTs" / "B-7.nii.gz").array, hecktor.mask()), "where new ones have masks, to evaluate"
    new.add("A-1")
    with pytest.raises(DatasetError, match=r"1 patient\(s\) of .*new.*also in.*A-1"):
        go(hecktor, out, new=new.folder)


# --- again


def test_a_second_run_does_what_changed_and_nothing_else(hecktor, out):
    for patient in ("A-1", "A-2", "A-3"):
        hecktor.add(patient)
    go(hecktor, out)
    before = states(out)
    result = go(hecktor, out)
    assert result.imported == 0
    assert states(out) == before
    write(hecktor.path("A-2"), np.ones(CT_GRID["shape"], np.uint8), CT_GRID)
    (out / "imagesTr" / "A-3_0001.nii.gz").write_bytes(b"cut")
    assert go(hecktor, out).imported == 2
    assert {name for name, state in states(out).items() if before[name] == state} == {name for name in before if "A-1" in name}
    assert read_mask(out / "labelsTr" / "A-2.nii.gz").array.all()


def test_what_left_the_source_leaves_the_dataset(hecktor, out):
    for patient in ("A-1", "A-2", "A-3"):
        hecktor.add(patient)
    go(hecktor, out)
    hecktor.path("A-2").unlink()
    for role in ("CT", "PT", ""):
        hecktor.path("A-3", role).unlink()
    hecktor.path("A-3").parent.rmdir()
    result = go(hecktor, out)
    assert (result.training, result.new, result.imported) == (("A-1",), ("A-2",), 1)
    assert names(out / "imagesTr") == ["A-1_0000.nii.gz", "A-1_0001.nii.gz"]
    assert names(out / "labelsTr") == ["A-1.nii.gz"]
    assert "A-3" in note(result, "taken away")
    assert [case.name for case in Dataset.open(out).cases] == ["A-1"]


def test_an_interruption_leaves_whole_cases_only(hecktor, out, monkeypatch):
    for patient in ("A-1", "A-2", "A-3"):
        hecktor.add(patient)
    original, calls = case_module.write_image, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(case_module, "write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(hecktor, out)
    assert names(out / "labelsTr") == ["A-1.nii.gz"]
    assert not (out / "dataset.json").exists(), "half a dataset does not look like a whole one"
    assert go(hecktor, out).imported == 2
    assert len(Dataset.open(out).cases) == 3


def test_a_worker_that_is_killed_leaves_no_part_of_a_case(hecktor, out, monkeypatch):
    hecktor.add("A-1")
    hecktor.add("A-2")

    def killed(task):
        if task.case == "A-1":
            return original(task)
        (out / task.targets["mask"]).write_bytes(b"part")
        raise WorkerError("case A-2: its worker process was killed")

    original = importing.import_case
    monkeypatch.setattr(importing, "import_case", killed)
    assert len(go(hecktor, out).failures) == 1
    assert names(out / "labelsTr") == ["A-1.nii.gz"]


def test_a_folder_that_holds_something_else(hecktor, out, tmp_path):
    hecktor.add("A-1")
    go(hecktor, out)
    with pytest.raises(DatasetError, match=r"holds an import of .* onto CT; asked for is .* onto 2,2,2"):
        go(hecktor, out, onto="2")
    other = Hecktor(tmp_path / "other")
    other.add("B-1")
    with pytest.raises(DatasetError, match="holds an import of"):
        go(other, out)
    (out / "import.json").unlink()
    with pytest.raises(DatasetError, match="was not imported"):
        go(hecktor, out)
    with pytest.raises(DatasetError, match="lies in the folder"):
        go(hecktor, hecktor.folder / "Task 1" / "out")
    with FoldLock(tmp_path), pytest.raises(LockError):
        go(hecktor, tmp_path)


def test_a_disk_that_is_too_small_is_found_before_anything_is_written(hecktor, out, monkeypatch):
    hecktor.add("A-1")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(ResourceError, match=r"importing 1 cases needs about 0\.0 GB.*--onto"):
        go(hecktor, out)
    assert names(out) == ["import.json"]


# --- what is wrong


def shifted(grid, axis, mm):
    origin = list(grid["origin"])
    origin[axis] += mm
    return grid | {"origin": tuple(origin)}


BAD = {
    "a CT cut short": (lambda h: h.path("X-1", "CT").write_bytes(h.path("X-1", "CT").read_bytes()[:200]), "X-1__CT.nii.gz"),
    "a PET of another patient's place": (
        lambda h: write(h.path("X-1", "PT"), h.pt(), shifted(PT_GRID, 2, 900)),
        "CT and PT do not overlap",
    ),
    "a PET that is not finite": (lambda h: write(h.path("X-1", "PT"), np.full_like(h.pt(), np.nan), PT_GRID), "X-1__PT.nii.gz"),
    "a third label": (
        lambda h: write(h.path("X-1"), h.mask() + h.mask() // 2, CT_GRID),
        r"holds 0, 1 \(GTVp\) and 2 \(GTVn\), found also 3 \(6",
    ),
    "a mask with fractions": (lambda h: write(h.path("X-1"), h.mask() * np.float32(0.5), CT_GRID), "whole numbers"),
    "a mask on the PET's grid": (
        lambda h: write(h.path("X-1"), np.ones(PT_GRID["shape"], np.uint8), PT_GRID),
        "the mask and the CT do not share a grid",
    ),
    "a mask beside the CT": (lambda h: write(h.path("X-1"), h.mask(), shifted(CT_GRID, 0, 0.5)), "do not share a grid"),
    "no PET": (lambda h: h.path("X-1", "PT").unlink(), r"X-1: has no PT: X-1__PT.nii.gz is missing"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_case_does_not_stop_the_others(hecktor, out, what):
    spoil, message = BAD[what]
    for patient in ("A-1", "X-1"):
        hecktor.add(patient)
    go(hecktor, out)
    spoil(hecktor)
    result = go(hecktor, out)
    (failure,) = result.failures
    assert "X-1" in failure
    assert re.search(message, failure), failure
    assert result.training == ("A-1",)
    assert [name for name in states(out) if "X-1" in name] == [], "what an earlier run made of other files is gone"
    assert len(Dataset.open(out).cases) == 1
    hecktor.add("X-1")
    assert go(hecktor, out).training == ("A-1", "X-1")


def test_what_looks_wrong_is_said(hecktor, out):
    hecktor.add("A-1")
    write(hecktor.path("A-1", "PT"), hecktor.pt() * 5000, PT_GRID)
    write(hecktor.path("A-1", "CT"), hecktor.ct("A-1") + np.int16(1500), CT_GRID)
    hecktor.add("A-2")
    write(hecktor.path("A-2"), np.zeros(CT_GRID["shape"], np.uint8), CT_GRID)
    hecktor.add("A-3")
    corner = np.zeros(CT_GRID["shape"], np.uint8)
    corner[0, 0, 0], corner[3, 4, 5] = 1, 1
    write(hecktor.path("A-3"), corner, CT_GRID)
    write(hecktor.path("A-3", "PT"), hecktor.pt()[1:], shifted(PT_GRID, 2, PT_GRID["spacing"][0]))
    result = go(hecktor, out)
    assert "A-1" in note(result, "is it in SUV")
    assert "A-1" in note(result, "is it in HU")
    assert "A-2" in note(result, "mask is empty")
    assert "0.003 of 0.006 ml of its GTVp" in note(result, "lie beyond the PET's field of view")


def test_a_lesion_that_is_lost_on_a_coarse_grid_is_said(hecktor, out):
    hecktor.add("A-1")
    small = hecktor.mask()
    small[small == 2] = 0
    small[4, 7, 2] = 2
    write(hecktor.path("A-1"), small, CT_GRID)
    assert "0.003 ml is lost on a grid of 3 x 3 x 3 mm" in note(go(hecktor, out, onto="3"), "its GTVn")


# --- the command


def command(*arguments):
    with pytest.raises(SystemExit) as ended:
        convert.main(["hecktor", *map(str, arguments)])
    return ended.value.code


def test_command(hecktor, out, tmp_path, capsys):
    for patient in ("A-1", "B-1"):
        hecktor.add(patient)
    assert command(hecktor.folder, out, "--workers", 0, "--json", tmp_path / "result.json") == 0
    assert "2 training cases with masks, PET on the CT's grid" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_text())["result"]["centres"] == {"A": 1, "B": 1}
    hecktor.path("B-1", "PT").write_bytes(b"")
    assert command(hecktor.folder, out, "--workers", 0, "--json", tmp_path / "result.json") == 3
    told = capsys.readouterr()
    assert "1 training cases" in told.out
    assert "1 case failed, 1 done" in told.err
    document = json.loads((tmp_path / "result.json").read_text())
    assert (document["status"], document["result"]["cases"], len(document["failures"])) == (3, 1, 1)
    assert command(hecktor.folder, out, "--onto", "thick") == 2
    assert "must be CT, PT, or a spacing" in capsys.readouterr().err
    assert command(tmp_path / "absent", tmp_path / "o") == 2
    (tmp_path / "empty" / "Task 1").mkdir(parents=True)
    assert command(tmp_path / "empty", tmp_path / "o") == 2
    assert "there are no patients" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_tables_that_contradict_each_other_write_nothing(hecktor, out, capsys):
    hecktor.add("A-1")
    hecktor.table({"PatientID": "A-1", "Age": "61"})
    hecktor.table({"PatientID": "A_1", "Age": "16"}, task=3)
    assert command(hecktor.folder, out) == 2
    told = capsys.readouterr().err
    assert "HECKTOR_2025_Training_Task_1.csv (row 2)" in told
    assert "HECKTOR_2025_Training_Task_3.csv (row 2)" in told
    assert not out.exists()


def test_in_processes(hecktor, out):
    for index in range(4):
        hecktor.add(f"A-{index}")
    hecktor.path("A-2", "PT").write_bytes(b"")
    result = import_hecktor(hecktor.folder, out, workers=2)
    assert (result.training, len(result.failures)) == (("A-0", "A-1", "A-3"), 1)
