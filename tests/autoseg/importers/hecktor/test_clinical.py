import pytest

from autoseg.errors import DatasetError
from autoseg.importers.hecktor.clinical import join_tables, name_centres


def tables(folder, *texts):
    paths = [folder / f"Task_{index}.csv" for index in range(1, len(texts) + 1)]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return paths


def error_of(folder, *texts):
    with pytest.raises(DatasetError) as caught:
        join_tables(tables(folder, *texts))
    return str(caught.value)


def test_rows_are_joined_by_patient(tmp_path):
    joined = join_tables(
        tables(
            tmp_path,
            "PatientID,CenterID,Age,Relapse\nA-1,1,61,0\nA-2,1,,\nB_1,2,70,1\n",
            "PatientID,CenterID,Age,HPV Status\nA_1,1,61.0,1\nA-2,1,55,0\nC-1,3,40,\n",
        )
    )
    assert joined.columns == ("CenterID", "Age", "Relapse", "HPV Status")
    assert joined.names == {"a-1": "A-1", "a-2": "A-2", "b-1": "B-1", "c-1": "C-1"}
    assert joined.rows["a-1"] == {"CenterID": "1", "Age": "61", "Relapse": "0", "HPV Status": "1"}, "61 and 61.0 are the same"
    assert joined.rows["a-2"] == {"CenterID": "1", "Age": "55", "Relapse": "", "HPV Status": "0"}, "a blank is filled, not a contradiction"
    assert joined.rows["c-1"] == {"CenterID": "3", "Age": "40", "HPV Status": ""}
    assert joined.centre_id("B_1") == "2"
    assert joined.centre_id("nobody") == ""


def test_text_stays_as_it_is_written(tmp_path):
    joined = join_tables(tables(tmp_path, b"\xef\xbb\xbfPatient ID;Center_ID;T;Note\r\nA-1;05.0; 1,5 ;M0\r\n;;;\r\n"))
    assert joined.rows == {"a-1": {"Center_ID": "05.0", "T": "1,5", "Note": "M0"}}
    assert joined.centre_id("A-1") == "5"


def test_centre_numbers(tmp_path):
    """Long numbers stay apart, and what a program writes for a blank is no centre."""
    cells = {"A-1": "12345678", "A-2": "12345679.0", "A-3": "nan", "A-4": "0.5", "A-5": "north", "A-6": ""}
    joined = join_tables(tables(tmp_path, "PatientID,CenterID\n" + "".join(f"{name},{cell}\n" for name, cell in cells.items())))
    assert [joined.centre_id(name) for name in cells] == ["12345678", "12345679", "", "0.5", "north", ""]


def test_every_contradiction_is_told_with_both_files(tmp_path):
    text = error_of(tmp_path, "PatientID,Age,Gender\nA-1,61,1\nB-1,50,0\n", "PatientID,age,Gender\nA_1,62,1\nB-1,50,1\n")
    assert "patient A-1: Age is '61' in Task_1.csv (row 2) and '62' in Task_2.csv (row 2)" in text
    assert "patient B-1: Gender is '0' in Task_1.csv (row 3) and '1' in Task_2.csv (row 3)" in text


def test_a_patient_twice_in_one_table(tmp_path):
    assert "'61' in Task_1.csv (row 2) and '62' in Task_1.csv (row 4)" in error_of(tmp_path, "PatientID,Age\nA-1,61\nB-1,3\nA-1,62\n")
    assert join_tables(tables(tmp_path, "PatientID,Age\nA-1,61\nA-1,61\n")).rows == {"a-1": {"Age": "61"}}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Patient,Age\nA-1,61\n", "PatientID among them; found: Patient, Age"),
        ("", "PatientID among them; found: nothing"),
        ("PatientID,Age\n,61\n", "Task_1.csv, row 2: has no PatientID"),
        ("PatientID,Age\nA-1,61,7\n", "Task_1.csv: row 2: has 3 fields, the header has 2"),
        ("PatientID,Age,age\nA-1,61,7\n", "'age' stands twice"),
        ("PatientID,Centre\nA-1,61\n", "'Centre' has a name that cases.csv needs"),
    ],
)
def test_tables_that_cannot_be_joined(tmp_path, text, part):
    assert part in error_of(tmp_path, text)


def test_no_tables():
    assert join_tables([]).rows == {}


def test_a_column_without_a_name(tmp_path):
    joined = join_tables(tables(tmp_path, ",PatientID,Age\n0,A-1,61\n"))
    assert joined.rows == {"a-1": {"Age": "61"}}
    assert "Task_1.csv" in joined.notes[0]


def test_centres_are_called_as_their_patients():
    centres, notes = name_centres({"CHUM-001": "1", "CHUM-002": "1", "MDA-001": "5", "MDA-002": ""})
    assert centres == {"CHUM-001": "CHUM", "CHUM-002": "CHUM", "MDA-001": "MDA", "MDA-002": "MDA"}
    assert notes == ()


def test_centres_whose_names_do_not_tell():
    ids = {"A-1": "1", "A-2": "1", "B-1": "1", "B-2": "2", "A-3": "3", "A-4": "3", "A-5": "", "B-3": "", "7": "4", "8": "", "C-1": ""}
    centres, notes = name_centres(ids)
    assert centres == {
        "A-1": "A-1",
        "A-2": "A-1",
        "B-1": "A-1",
        "B-2": "B",
        "A-3": "A-3",
        "A-4": "A-3",
        "A-5": "",
        "B-3": "B",
        "7": "4",
        "8": "",
        "C-1": "C",
    }
    strangers, lost = notes
    assert "B-1 (A-1)" in strangers
    assert lost == "2 patient(s) have no CenterID, and their names do not tell: A-5, 8"
