"""Tables as people save them: marks, encodings, delimiters, several header rows. The cells are compared with what was written."""

import csv
import io

import pytest
from clinical import HEADER, ROWS, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from prognosis.errors import CohortError
from prognosis.table import read_table

WRITTEN = [row.split(",") for row in ROWS]


def cells(table):
    return table.frame.values.tolist()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_way_to_save_it_reads_the_same(tmp_path, encoding, delimiter, ending):
    lines = [HEADER.replace("Gender", "Größe"), *ROWS]
    path = tmp_path / "cases.csv"
    path.write_bytes(ending.join(line.replace(",", delimiter) for line in lines).encode(encoding))
    table = read_table(path)
    assert table.columns == tuple(lines[0].split(","))
    assert cells(table) == WRITTEN
    assert table.rows == tuple(range(2, 10))
    assert bool(table.notes) == (encoding == "cp1252")


def test_a_declared_encoding_is_taken(tmp_path):
    (tmp_path / "t.csv").write_bytes("patient,město\n1,Plzeň\n".encode("cp1250"))
    assert cells(read_table(tmp_path / "t.csv", encoding="cp1250")) == [["1", "Plzeň"]]
    with pytest.raises(CohortError, match="is no ascii text"):
        read_table(tmp_path / "t.csv", encoding="ascii")


def test_a_name_with_a_comma_does_not_choose_the_delimiter(tmp_path):
    (tmp_path / "t.csv").write_text("patient;HPV status (0=-, 1=+);Age\nP1;1;60\n")
    assert read_table(tmp_path / "t.csv").columns == ("patient", "HPV status (0=-, 1=+)", "Age")


def test_rows_are_numbered_as_a_spreadsheet_shows_them(tmp_path):
    path = write_table(tmp_path, [ROWS[0], "", ",,,,,,,,,", ROWS[1]])
    assert read_table(path).rows == (2, 5)


def test_empty_columns_at_the_right_end_are_not_there(tmp_path):
    path = write_table(tmp_path, [row + ",," for row in ROWS], HEADER + ",,")
    assert read_table(path).columns == tuple(HEADER.split(","))
    path = write_table(tmp_path, [ROWS[0] + ",,x"], HEADER + ",,")
    with pytest.raises(CohortError, match=r"column\(s\) 11, 12 of 12 have no name"):
        read_table(path)


def test_several_lines_of_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("patient,patient,tumor\n#,#,1\nid,age,t_stage\nP1,60,3\n")
    table = read_table(path, header_rows=3)
    assert (table.columns, table.rows) == (("patient/#/id", "patient/#/age", "tumor/1/t_stage"), (4,))
    with pytest.raises(CohortError, match=r"'patient' stand more than once.*header_rows = 3"):
        read_table(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(CohortError, match="nothing.csv: cannot be read: No such file"):
        read_table(tmp_path / "nothing.csv")


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8).map(str.strip)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT).filter(any), min_size=1, max_size=5), delimiter=st.sampled_from(",;\t|"))
def test_any_text_comes_back(tmp_path_factory, rows, delimiter):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([("a", "b", "c"), *rows])
    path = tmp_path_factory.mktemp("text") / "t.csv"
    path.write_bytes(text.getvalue().encode())
    assert cells(read_table(path)) == [list(row) for row in rows]
