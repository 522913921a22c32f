"""Which file is whose, by names alone: the files are empty."""

import pytest

from autoseg.dataset.patients import patient_key, patient_name
from autoseg.errors import DatasetError
from autoseg.importers.hecktor.layouts import read_tree
from autoseg.importers.hecktor.tree import MASK


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def whole(task, patient, within=None):
    return [f"{task}/{within or patient}/{patient}{end}.nii.gz" for end in ("__CT", "__PT", "")]


def flat(patient, label=None, split="Tr"):
    return [f"images{split}/{patient}__CT.nii.gz", f"images{split}/{patient}__PT.nii.gz", f"labels{split}/{label or patient}.nii.gz"]


def in_folder(patient):
    return [f"{patient}/{patient}{end}.nii.gz" for end in ("__CT", "__PT", "")]


def studies(tree):
    return {study.patient: {role: path.relative_to(tree.folder).as_posix() for role, path in study.files.items()} for study in tree.studies}


def test_one_patient(tmp_path):
    tree = read_tree(make(tmp_path, *whole("Task 1", "CHUM-001"), "HECKTOR_2025_Training_Task_1.csv"))
    base = "Task 1/CHUM-001/CHUM-001"
    assert studies(tree) == {"CHUM-001": {"CT": f"{base}__CT.nii.gz", "PT": f"{base}__PT.nii.gz", MASK: f"{base}.nii.gz"}}
    assert [path.name for path in tree.tables] == ["HECKTOR_2025_Training_Task_1.csv"]
    assert (tree.edition, tree.problems, tree.notes) == ("2025", [], [])


@pytest.mark.parametrize(
    ("task", "within", "files"),
    [
        ("Task 1", "CHUM_001", ["CHUM_001__CT.nii.gz", "CHUM_001__PT.nii.gz", "CHUM_001.nii.gz"]),
        ("Task_1", "CHUM-001", ["CHUM_001__CT.nii.gz", "CHUM-001__PT.nii.gz", "CHUM_001.nii.gz"]),
        ("task1", "CHUM-001", ["CHUM-001_CT.nii.gz", "CHUM-001_PET.nii.gz", "CHUM-001.nii.gz"]),
        ("Task-1", "CHUM-001", ["chum-001__ct.nii.gz", "CHUM-001__pt.mha", "Chum-001.nrrd"]),
    ],
)
def test_spellings_of_one_name(tmp_path, task, within, files):
    tree = read_tree(make(tmp_path, *(f"{task}/{within}/{file}" for file in files)))
    (study,) = tree.studies
    assert study.patient == "CHUM-001"
    assert [study.files[role].name for role in ("CT", "PT", MASK)] == files
    assert (tree.problems, tree.notes) == ([], [])
    assert patient_name(" CHUM_001 ") == "CHUM-001"
    assert patient_key("CHUM_001") == patient_key("chum-001")


def test_a_patient_in_several_tasks_is_one_study_from_the_fullest_folder(tmp_path):
    make(tmp_path, "Task 1/A-1/A-1__CT.nii.gz", "Task 1/A-1/A-1__PT.nii.gz", *whole("Task 2", "A-1", "A_1"), *whole("Task 3", "A-1"))
    make(tmp_path, *whole("Task 1", "B-1"), *whole("Task 2", "B-1"))
    (tmp_path / "Task 2/B-1/B-1__PT.nii.gz").write_bytes(b"another")
    make(tmp_path, "Task 1/C-1/C-1__CT.nii.gz", "Task 1/C-1/C-1.nii.gz", "Task 3/C-1/C-1__PT.nii.gz")
    tree = read_tree(tmp_path)
    folders = {name: {role: path.split("/")[0] for role, path in files.items()} for name, files in studies(tree).items()}
    assert folders == {
        "A-1": {"CT": "Task 2", "PT": "Task 2", MASK: "Task 2"},
        "B-1": {"CT": "Task 1", "PT": "Task 1", MASK: "Task 1"},
        "C-1": {"CT": "Task 1", "PT": "Task 3", MASK: "Task 1"},
    }
    assert tree.problems == []
    assert tree.notes == [
        "patient B-1: Task 2 holds another PT than Task 1, whose is used",
        "patient C-1: its PT is that of Task 3, since Task 1 has none",
    ]


def test_what_is_missing_is_named_and_the_others_are_found(tmp_path):
    make(tmp_path, *whole("Task 1", "A-1"), "Task 1/B-1/B-1__CT.nii.gz", "Task 1/B-1/B-1.nii.gz")
    make(tmp_path, "Task 1/C-1/C-1__CT.nii.gz", "Task 1/C-1/C-1__PT.nii.gz", "Task 1/D-1/D-1__RTDOSE.nii.gz")
    tree = read_tree(tmp_path)
    assert {name: MASK in files for name, files in studies(tree).items()} == {"A-1": True, "C-1": False}
    first, second = tree.problems
    assert first.startswith("patient B-1: has no PT: B-1__PT.nii.gz is missing in")
    assert second.startswith("patient D-1: has no CT and no PT")


def test_two_files_or_folders_for_one_thing(tmp_path):
    make(tmp_path, *whole("Task 1", "A-1"), "Task 1/A-1/A_1__CT.nii.gz", *whole("Task 1", "B-1"), *whole("Task 1", "B_1"))
    tree = read_tree(tmp_path)
    assert tree.studies == []
    first, second = tree.problems
    assert "A-1__CT.nii.gz and A_1__CT.nii.gz" in first
    assert second == "patient B-1: Task 1 has 2 folders of this patient: B-1, B_1. Leave one"


def test_what_is_not_used_is_said(tmp_path):
    make(tmp_path, *whole("Task 1", "A-1"), *whole("Task 2", "A-1"), "Task 2/A-1/A-1__CTPlanning.nii.gz", "Task 2/A-1/A-1__RTDOSE.nii.gz")
    make(tmp_path, "Task 2/B-1/B-1__dosimetry_CT.nii.gz", "Task 2/B-1/B-1__CT.nii.gz", "Task 2/B-1/B-1__PT.nii.gz")
    make(
        tmp_path, "readme.pdf", "Task 1/.DS_Store", "Task 1/A-1/A-1__CT.NII.GZ", "Task 1/A-1/B-7__CT.nii.gz", "other.csv", "Task 1/A-1/x/y"
    )
    tree = read_tree(tmp_path)
    assert [study.patient for study in tree.studies] == ["A-1", "B-1"]
    planning, hidden, capitals, others = tree.notes
    assert "1 ctplanning, 1 dosimetry_ct, 1 rtdose" in planning
    assert "1 hidden" in hidden
    assert "A-1__CT.NII.GZ" in capitals
    assert others.endswith("other.csv, readme.pdf, Task 1/A-1/B-7__CT.nii.gz, Task 1/A-1/x")


def test_tables_lie_beside_the_tasks_or_in_them(tmp_path):
    make(tmp_path, *whole("Task 1", "A-1"), "Task 2/HECKTOR_2025_Training_Task_2.csv", "HECKTOR_2025_Training_Task_3.csv", "._Task_1.csv")
    assert [path.name[-5] for path in read_tree(tmp_path).tables] == ["2", "3"]


def test_folders_that_are_none_of_hecktors(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        read_tree(tmp_path / "absent")
    with pytest.raises(DatasetError, match="is a file"):
        read_tree(make(tmp_path, "file") / "file")
    make(tmp_path / "outer", *(f"hecktor2025_training/{name}" for name in whole("Task 1", "A-1")))
    with pytest.raises(DatasetError, match=r"no HECKTOR folder.*Did you mean .*outer/hecktor2025_training\?"):
        read_tree(tmp_path / "outer")


def test_2022_is_flat_and_its_labels_are_spelt_otherwise(tmp_path):
    make(tmp_path, *flat("CHUM-001", "CHUM_001"), *flat("MDA-002"), "imagesTr/HGJ-003__CT.nii.gz", "imagesTr/HGJ-003__PT.nii.gz")
    make(
        tmp_path, "hecktor2022_endpoint_training.csv", "hecktor2022_clinical_info_training.csv", "hecktor2022_patient_endpoint_training.csv"
    )
    tree = read_tree(tmp_path)
    assert studies(tree) == {
        "CHUM-001": {"CT": "imagesTr/CHUM-001__CT.nii.gz", "PT": "imagesTr/CHUM-001__PT.nii.gz", MASK: "labelsTr/CHUM_001.nii.gz"},
        "HGJ-003": {"CT": "imagesTr/HGJ-003__CT.nii.gz", "PT": "imagesTr/HGJ-003__PT.nii.gz"},
        "MDA-002": {"CT": "imagesTr/MDA-002__CT.nii.gz", "PT": "imagesTr/MDA-002__PT.nii.gz", MASK: "labelsTr/MDA-002.nii.gz"},
    }
    assert [path.stem.removeprefix("hecktor2022_") for path in tree.tables] == [
        "clinical_info_training",
        "endpoint_training",
        "patient_endpoint_training",
    ]
    assert (tree.edition, tree.problems, tree.notes) == ("2022", [], [])


def test_2022_testing_has_images_alone(tmp_path):
    make(tmp_path, "imagesTs/USZ-001__CT.nii.gz", "imagesTs/USZ-001__PT.nii.gz", "hecktor2022_clinical_info_testing.csv")
    tree = read_tree(tmp_path)
    assert list(studies(tree)) == ["USZ-001"]
    assert [path.name for path in tree.tables] == ["hecktor2022_clinical_info_testing.csv"]
    assert [study.is_test for study in tree.studies] == [True]


def test_what_is_wrong_in_2022(tmp_path):
    make(tmp_path, *flat("A-1"), "labelsTr/A_1.nii.gz", *flat("B-1"), "labelsTr/C-1.nii.gz", "imagesTr/D-1__CT.nii.gz")
    make(tmp_path, *flat("B_1", split="Ts"), "imagesTr/B-1.nii.gz", "labelsTr/B-1__CT.nii.gz", "imagesTr/B-1__RTDOSE.nii.gz", "notes.csv")
    tree = read_tree(tmp_path)
    assert list(studies(tree)) == ["B-1"]
    both, images, pet = tree.problems
    assert both.endswith("A-1.nii.gz and A_1.nii.gz in " + f"{tmp_path}/labelsTr are both its mask. Leave one of them")
    assert images.startswith("patient C-1: has no CT and no PT")
    assert pet.startswith("patient D-1: has no PT")
    planning, others = tree.notes
    assert "1 rtdose" in planning
    assert others.endswith("notes.csv, imagesTr/B-1.nii.gz, labelsTr/B-1__CT.nii.gz")


@pytest.mark.parametrize("table", ["HECKTOR_2026_Training_Task.csv", "HECKTOR_2026_Training.csv", "HECKTOR_2026_training_data.csv"])
def test_2026_has_a_folder_a_patient(tmp_path, table):
    make(tmp_path, *in_folder("CHUM-001"), *in_folder("MDA_002"), "X-3/X-3.nii.gz", "documents/read.me", table)
    tree = read_tree(tmp_path)
    assert {name: len(files) for name, files in studies(tree).items()} == {"CHUM-001": 3, "MDA-002": 3}
    assert [path.name for path in tree.tables] == [table]
    assert tree.edition == "2026"
    (problem,) = tree.problems
    assert problem.startswith("patient X-3: has no CT and no PT")
    (note,) = tree.notes
    assert note.endswith(": documents")


def test_one_task_of_2025_is_not_taken_for_2026(tmp_path):
    make(tmp_path, *whole("Task 1", "A-1"))
    with pytest.raises(DatasetError, match=rf"Did you mean {tmp_path}\?"):
        read_tree(tmp_path / "Task 1")


def test_a_dataset_folder_is_no_hecktor_folder(tmp_path):
    make(tmp_path, "imagesTr/CHUM-001_0000.nii.gz", "imagesTr/CHUM-001_0001.nii.gz", "labelsTr/CHUM-001.nii.gz")
    with pytest.raises(DatasetError, match="is no HECKTOR folder"):
        read_tree(tmp_path)


def test_the_edition_can_be_said(tmp_path):
    make(tmp_path, *flat("A-1"), *in_folder("B-1"))
    with pytest.raises(DatasetError, match="holds what HECKTOR 2022 and 2026 have. Say which is meant with --edition"):
        read_tree(tmp_path)
    assert list(studies(read_tree(tmp_path, "2026"))) == ["B-1"]
    assert list(studies(read_tree(tmp_path, "2022"))) == ["A-1"]
    with pytest.raises(DatasetError, match=r"expected are folders 'Task 1' to 'Task 3' with one folder a patient \(HECKTOR 2025\); found"):
        read_tree(tmp_path, "2025")
    with pytest.raises(DatasetError, match="--edition 2021: the editions are 2022, 2025, 2026"):
        read_tree(tmp_path, "2021")
