import json
import os
import pickle
import sys
from pathlib import Path

import pytest

from autoseg.dataset import Dataset, Source
from autoseg.errors import DatasetError

DATA = Path(os.environ.get("AUTOSEG_DATA") or Path(__file__).parents[4] / "shared" / "data")
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data: set AUTOSEG_DATA to its folder")


def error_of(folder, **options) -> str:
    with pytest.raises(DatasetError) as caught:
        Dataset.open(folder, **options)
    return str(caught.value)


def test_nnunet_layout(make):
    make.describe(channel_names={"0": "CT", "1": "PET"}, numTraining=2)
    make.case("b", 2)
    make.case("a_01", 2)
    dataset = Dataset.open(make.folder)
    assert [case.name for case in dataset.cases] == ["a_01", "b"]
    assert dataset.cases[1].images == (
        Source(make.folder / "imagesTr/b_0000.nii.gz"),
        Source(make.folder / "imagesTr/b_0001.nii.gz"),
    )
    assert dataset.cases[1].label == make.folder / "labelsTr/b.nii.gz"
    assert (dataset.cases[1].patient, dataset.cases[1].centre) == ("b", "")
    assert (dataset.name, dataset.channels, dataset.file_ending) == ("Dataset001_Test", ("CT", "PET"), ".nii.gz")
    assert dataset.notes == ()
    assert dataset.folder.is_absolute()
    assert dataset.case("b") is dataset.cases[1]
    assert pickle.loads(pickle.dumps(dataset)) == dataset


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_every_ending(make, ending):
    make.describe(file_ending=ending)
    make.case("a", ending=ending)
    assert [case.name for case in Dataset.open(make.folder).cases] == ["a"]


def test_msd_layout_with_one_modality(make):
    make.msd("liver_1", "liver_0")
    make.write("imagesTr/._liver_0.nii.gz")
    make.write("labelsTr/._liver_0.nii.gz")
    dataset = Dataset.open(make.folder)
    assert [case.name for case in dataset.cases] == ["liver_0", "liver_1"]
    assert dataset.cases[0].images == (Source(make.folder / "imagesTr/liver_0.nii.gz"),)
    assert [note for note in dataset.notes if "._liver_0.nii.gz" in note and "ignored" in note]


def test_msd_layout_with_several_modalities_splits_the_file(make):
    make.msd("prostate_00", modality={"0": "T2", "1": "ADC"})
    path = make.folder / "imagesTr/prostate_00.nii.gz"
    assert Dataset.open(make.folder).cases[0].images == (Source(path, 0), Source(path, 1))


def test_first_version_of_nnunet_lists_a_name_and_stores_channels(make):
    make.msd("a", modality={"0": "T2", "1": "ADC"})
    (make.folder / "imagesTr/a.nii.gz").unlink()
    make.write("imagesTr/a_0000.nii.gz")
    assert "a_0001.nii.gz is missing" in error_of(make.folder)
    make.write("imagesTr/a_0001.nii.gz")
    images = Dataset.open(make.folder).cases[0].images
    assert [source.path.name for source in images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert [source.component for source in images] == [None, None]


def test_dataset_list_points_anywhere(make, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("ct.nii.gz", "mask.nrrd"):
        (elsewhere / name).touch()
    listed = {
        "x": {"images": [str(elsewhere / "ct.nii.gz")], "label": "../elsewhere/mask.nrrd"},
        "y": {"images": ["../elsewhere/ct.nii.gz"], "label": str(elsewhere / "mask.nrrd")},
    }
    make.describe(dataset=listed)
    cases = Dataset.open(make.folder).cases
    assert [case.name for case in cases] == ["x", "y"]
    assert all(case.images[0].path.samefile(elsewhere / "ct.nii.gz") and case.label.samefile(elsewhere / "mask.nrrd") for case in cases)


@pytest.mark.skipif(sys.platform == "win32", reason="makes symbolic links, which need a privilege on Windows; runs on Linux and macOS")
def test_links_are_followed_and_a_broken_one_is_named(make, tmp_path):
    make.describe()
    target = tmp_path / "image.nii.gz"
    target.touch()
    make.write("labelsTr/a.nii.gz")
    (make.folder / "imagesTr").mkdir()
    (make.folder / "imagesTr/a_0000.nii.gz").symlink_to(target)
    assert len(Dataset.open(make.folder).cases) == 1
    target.unlink()
    assert "is a link to" in error_of(make.folder)


def test_missing_files_are_errors_all_of_them_at_once(make):
    make.describe(channel_names={"0": "CT", "1": "PET"})
    make.case("good", 2)
    make.case("no_pet", 1)
    make.case("no_label", 2)
    (make.folder / "labelsTr/no_label.nii.gz").unlink()
    make.write("labelsTr/no_image.nii.gz")
    message = error_of(make.folder)
    for part in (
        "case no_pet: its PET image imagesTr/no_pet_0001.nii.gz is missing",
        "case no_label: its label labelsTr/no_label.nii.gz is missing",
        "--exclude no_label",
        "case no_image: its CT image imagesTr/no_image_0000.nii.gz is missing",
        "4 problems",
    ):
        assert part in message
    assert "case good" not in message
    dataset = Dataset.open(make.folder, exclude=["no_pet", "no_label", "no_image"])
    assert [case.name for case in dataset.cases] == ["good"]


def test_listed_cases_with_missing_files(make):
    make.msd("a", "b", "c")
    (make.folder / "imagesTr/a.nii.gz").unlink()
    (make.folder / "labelsTr/b.nii.gz").unlink()
    message = error_of(make.folder)
    assert "case a: its image ./imagesTr/a.nii.gz is missing" in message
    assert "case b: its label ./labelsTr/b.nii.gz is missing" in message
    make.describe(training=[{"image": "./imagesTr/c.nii.gz"}])
    assert "case c: has no label" in error_of(make.folder)


def test_number_of_listed_images_must_be_that_of_the_channels(make):
    make.write("a.nii.gz")
    make.describe(dataset={"a": {"images": ["a.nii.gz", "a.nii.gz"], "label": "a.nii.gz"}})
    assert "lists 2 image(s), the channels are 1: CT" in error_of(make.folder)


def test_unused_files_are_noted_never_dropped_silently(make):
    make.describe()
    make.case("a")
    for name in ("imagesTr/a_0001.nii.gz", "imagesTr/b_0000.NII.GZ", "imagesTr/readme.txt", "imagesTr/c_0000.nrrd", "labelsTr/a.json"):
        make.write(name)
    make.write("imagesTr/.DS_Store")
    notes = "\n".join(Dataset.open(make.folder).notes)
    for name in ("a_0001.nii.gz", "b_0000.NII.GZ", "readme.txt", "c_0000.nrrd", "a.json", ".DS_Store"):
        assert name in notes
    assert "capitals" in notes


def test_ending_in_capitals_is_named_where_the_file_is_missed(make):
    make.describe()
    make.write("imagesTr/a_0000.NII.GZ")
    make.write("labelsTr/a.nii.gz")
    assert "there is a_0000.NII.GZ" in error_of(make.folder)


def test_files_that_a_list_leaves_out_are_noted_those_of_excluded_cases_are_not(make):
    make.msd("a", "b")
    make.write("imagesTr/c.nii.gz")
    make.write("imagesTr/a_0000.nii.gz")
    (note,) = Dataset.open(make.folder, exclude=["b"]).notes
    assert "2 file(s) are not listed in dataset.json and not used: a_0000.nii.gz, c.nii.gz" in note


def test_empty_lists_leave_it_to_the_folders(make):
    make.describe(training=[], dataset={})
    make.case("a")
    assert [case.name for case in Dataset.open(make.folder).cases] == ["a"]


def test_number_of_cases_that_differs_is_noted(make):
    make.describe(numTraining=7)
    make.case("a")
    (note,) = Dataset.open(make.folder).notes
    assert "7" in note
    assert "1 training" in note


def test_no_cases(make):
    make.describe()
    assert "folder imagesTr and labelsTr is missing" in error_of(make.folder)
    make.write("imagesTr/scan.nii.gz")
    make.write("labelsTr/.keep")
    message = error_of(make.folder)
    assert "no training cases" in message
    assert "scan.nii.gz" in message


def test_duplicates(make):
    make.msd("a")
    make.describe(training=[{"image": f"./{sub}/a.nii.gz", "label": "./labelsTr/a.nii.gz"} for sub in ("imagesTr", "more")])
    make.write("more/a.nii.gz")
    assert "case a: stands twice" in error_of(make.folder)
    make.write("dataset.json", json.dumps(make.document)[:-1] + ', "dataset": {"x": {}, "x": {}}}')
    assert "'x' stands twice" in error_of(make.folder)


@pytest.mark.parametrize("name", ["../evil", "a/b", "a:b", ".hidden", "", "tab\tname"])
def test_case_names_that_are_no_file_names(make, name):
    make.write("a.nii.gz")
    make.describe(dataset={name: {"images": ["a.nii.gz"], "label": "a.nii.gz"}})
    assert "the name" in error_of(make.folder)


def test_exclude_an_unknown_case(make):
    make.describe()
    make.case("patient_01")
    make.case("patient_02")
    message = error_of(make.folder, exclude=["patient_1"])
    assert "--exclude patient_1: there is no case" in message
    assert "patient_01" in message


def test_unknown_case_asked_for(make):
    make.describe()
    make.case("a")
    with pytest.raises(DatasetError, match="no case 'b'"):
        Dataset.open(make.folder).case("b")


def test_table_gives_patient_and_centre(make):
    make.describe()
    for name in "abc":
        make.case(name)
    make.write("cases.csv", '\ufeffCase,Patient, Center ,Scanner type\r\na,p1,CHUM,x\r\nb,p1,CHUM,"y, z"\r\nc,,MDA,\r\n')
    cases = Dataset.open(make.folder).cases
    assert [(case.patient, case.centre) for case in cases] == [("p1", "CHUM"), ("p1", "CHUM"), ("c", "MDA")]
    assert cases[1].extra == {"Scanner type": "y, z"}


def test_table_with_semicolons(make):
    make.describe()
    make.case("a")
    make.write("cases.csv", "case;centre\na;Zürich\n")
    assert Dataset.open(make.folder).cases[0].centre == "Zürich"


def test_table_and_cases_that_do_not_fit(make):
    make.describe()
    for name in ("head_01", "head_02", "head_03"):
        make.case(name)
    make.write("cases.csv", "case,centre\nhead_01,A\nhead_02,\nhead_3,B\ntest_09,B\n")
    message = error_of(make.folder)
    assert "no row for 1 case(s): head_03" in message
    assert "Did you mean head_3" in message
    notes = "\n".join(Dataset.open(make.folder, exclude=["head_03"]).notes)
    assert "row(s) of no training case, not used: head_3, test_09" in notes
    assert "no centre: head_02" in notes


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "must name the columns"),
        (b"name,centre\na,A\n", "'case' among them"),
        (b"case,centre\na,A\na,B\n", "for the second time"),
        (b"case,centre\na,A,3\n", "row 2: has 3 fields, the header has 2"),
        (b"case,centre\n,A\n", "row 2: has no case"),
        (b"case,case\na,a\n", "stands twice"),
        (b"case,centre\na,Z\xfcrich\n", "UTF-8"),
        (b'case,centre\na,"open\n', "no valid CSV"),
    ],
)
def test_broken_tables(make, content, part):
    make.describe()
    make.case("a")
    (make.folder / "cases.csv").write_bytes(content)
    message = error_of(make.folder)
    assert part in message
    assert "cases.csv" in message


def test_labels_with_sides(make):
    make.describe(labels={"background": 0, "parotid_left": 1, "parotid_right": 2})
    make.case("a")
    assert Dataset.open(make.folder).has_sides


@real_data
def test_real_decathlon_folder():
    dataset = Dataset.open(DATA / "msd_hippocampus")
    assert len(dataset.cases) == 200
    assert dataset.labels == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert all(source.path.exists() for case in dataset.cases for source in case.images)


@real_data
def test_real_nnunet_folder():
    dataset = Dataset.open(DATA / "sts_petct_petgrid")
    assert len(dataset.cases) == 35
    assert dataset.channels == ("CT", "PET")
    assert {len(case.images) for case in dataset.cases} == {2}
