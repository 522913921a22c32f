"""Small clinical tables as files: a good one, and every way in which one goes wrong that the cohort must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HEADER = "case,patient,centre,Age,Gender,HPV Status,M-stage,Weight,Relapse,RFS"
ROWS = (
    "A-1,A-1,A,61,0,1,M0,70.5,1,210",
    "A-2,A-2,A,55,1,,M0,,0,1400",
    "A-3,A-3,A,70,0,0,M1,82,1,90",
    "A-4,A-4,A,48,0,1,M0,64,0,900",
    "B-1,B-1,B,66,1,0,M0,91,0,2000",
    "B-2,B-2,B,59,0,1,M0,77,1,455",
    "B-3,B-3,B,73,0,,M0,80,0,1200",
    "B-4,B-4,B,51,1,0,M1,58,1,300.5",
)
"""HECKTOR's columns. Two patients of unknown HPV status, one of unknown weight, four relapses."""

LEVELS = {"Age": "numeric", "Gender": "categorical", "HPV Status": "categorical", "M-stage": "categorical", "Weight": "numeric"}


def write_table(folder: Path, rows=ROWS, header: str = HEADER, name: str = "cases.csv", ending: str = "\n") -> Path:
    path = folder / name
    path.write_text(ending.join([header, *rows]) + ending, encoding="utf-8", newline="")
    return path


def with_cell(row: int, column: str, value: str, rows=ROWS) -> tuple[str, ...]:
    """The rows with another value in one cell; `row` from 0."""
    cells = rows[row].split(",")
    cells[HEADER.split(",").index(column)] = value
    return (*rows[:row], ",".join(cells), *rows[row + 1 :])


def with_column(column: str, values, rows=ROWS) -> tuple[str, ...]:
    """The rows with other values in one column; `values` is a list or one value for all."""
    values = [values] * len(rows) if isinstance(values, str) else values
    for row, value in enumerate(values):
        rows = with_cell(row, column, value, rows)
    return rows


@dataclass(frozen=True)
class BadTable:
    """A table, or a cohort.toml beside it, that cannot be meant.

    Args:
        name: of the fault.
        write: writes cases.csv into a folder.
        says: what the error's message holds, each part somewhere in it.
        target: that is asked for.
        toml: the content of cohort.toml; "" for none.
    """

    name: str
    write: Callable[[Path], Path]
    says: tuple[str, ...]
    target: str = "rfs"
    toml: str = ""

    def __str__(self) -> str:
        return self.name


def _rows(rows, **keywords) -> Callable[[Path], Path]:
    return lambda folder: write_table(folder, rows, **keywords)


def _bytes(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "cases.csv"
        path.write_bytes(content)
        return path

    return write


_TEXT = "\n".join([HEADER, *ROWS]) + "\n"

BAD_TABLES = (
    BadTable("all censored", _rows(with_column("Relapse", "0")), ("all 8 patients are censored", "Relapse = 1", "nothing to learn")),
    BadTable("one event", _rows(with_cell(2, "Relapse", "1", with_column("Relapse", "0"))), ("one of 8 patients", "A-3")),
    BadTable("time 0", _rows(with_cell(1, "RFS", "0")), ("row 3 (patient A-2)", "'RFS'", "'0'", "above 0", 'not_at_risk = "exclude"')),
    BadTable("negative time", _rows(with_cell(4, "RFS", "-12")), ("row 6 (patient B-1)", "'-12'", "end of radiotherapy")),
    BadTable("infinite time", _rows(with_cell(4, "RFS", "inf")), ("row 6 (patient B-1)", "'RFS'", "'inf'")),
    BadTable("event is 2", _rows(with_cell(5, "Relapse", "2")), ("row 7 (patient B-2)", "'Relapse'", "'2'", "1 (seen) or 0", "positive =")),
    BadTable("event is a word", _rows(with_column("Relapse", ["yes", "no"] * 4)), ("'Relapse'", "'yes'", "and 5 more", "[targets.rfs]")),
    BadTable("one class", _rows(with_column("HPV Status", "1")), ("hpv", "none has the value 0", "two classes"), target="hpv"),
    BadTable(
        "one of a class",
        _rows(with_cell(3, "HPV Status", "0", with_column("HPV Status", "1"))),
        ("only A-4 has the value 0",),
        target="hpv",
    ),
    BadTable("no outcome at all", _rows(with_column("Relapse", "")), ("no patient is left", "rfs")),
    BadTable("patient twice", _rows((*ROWS, ROWS[0].replace("A-1", "", 1))), ("patient A-1", "rows 2, 10")),
    BadTable("case twice", _rows((*ROWS, ROWS[0])), ("case A-1", "rows 2, 10", "Keep one")),
    BadTable(
        "two scans disagree",
        _rows((*ROWS, with_cell(0, "RFS", "300")[0].replace("A-1", "A-1b", 1))),
        ("patient A-1", "contradict", "'RFS'", "row 2: '210'", "row 10: '300'"),
    ),
    BadTable("nameless row", _rows((*ROWS, ",,B,60,0,1,M0,70,1,200")), ("row 10", "names no patient")),
    BadTable("patient spelt twice", _rows(with_cell(1, "patient", "a_1")), ("'A-1' (row 2", "'a_1' (row 3", "Spell them the same")),
    BadTable("centre spelt twice", _rows(with_cell(1, "centre", "a")), ("'A' (row 2", "'a' (row 3", "centres")),
    BadTable(
        "dates for days", _rows(with_cell(0, "RFS", "2009-03-14")), ("row 2 (patient A-1)", "dates", "number of days since the end of rad")
    ),
    BadTable("dates for days, dd/mm/yy", _rows(with_cell(0, "RFS", "14/3/09")), ("row 2 (patient A-1)", "dates", "14/3/09")),
    BadTable(
        "a spreadsheet's dates", _rows(with_cell(0, "RFS", "39886")), ("row 2 (patient A-1)", "100 years", "Dates that a spreadsheet")
    ),
    BadTable("dates as predictor", _rows(with_column("Age", "14/3/1961")), ("'Age'", "dates", "14/3/1961")),
    BadTable(
        "decimal commas",
        lambda folder: write_table(folder, [row.replace(",", ";").replace(".", ",") for row in ROWS], HEADER.replace(",", ";")),
        ("row 9 (patient B-4)", "'RFS'", "'300,5'", 'decimal = ","'),
    ),
    BadTable(
        "decimal commas between commas", _rows((*ROWS[:-1], ROWS[-1].replace("300.5", "300,5"))), ("row 9 (11)", "10 fields", "semicolons")
    ),
    BadTable(
        "points where commas are declared",
        _rows(ROWS),
        ("row 9 (patient B-4)", "decimal points"),
        toml='[table]\ndecimal = ","\n',
    ),
    BadTable("text among numbers", _rows(with_cell(6, "Age", "ca. 70")), ("row 8 (patient B-3)", "'Age'", "'ca. 70'", "missing")),
    BadTable(
        "free text as levels",
        _rows([*ROWS, *(f"C-{i},C-{i},C,60,note {i},1,M0,70,1,{100 + i}" for i in range(25))]),
        ("'Gender'", "27 different values", "free text"),
    ),
    BadTable("not UTF-8, not Windows-1252", _bytes(_TEXT.replace("A-1", "\x81").encode("latin-1")), ("UTF-8", "encoding =")),
    BadTable("a workbook", _bytes(b"PK\x03\x04" + b"\0" * 50), ("Excel", "CSV UTF-8")),
    BadTable("empty file", _bytes(b""), ("is empty",)),
    BadTable("no rows", _bytes(HEADER.encode()), ("no row",)),
    BadTable("a short row", _rows((*ROWS, "B-9,B-9")), ("row 10 (2)", "10 fields")),
    BadTable("an open quote", _rows((*ROWS, 'B-9,"B-9')), ("no valid CSV",)),
    BadTable("a column twice", _rows(ROWS, header=HEADER.replace("Weight", "Age")), ("'Age'", "more than once")),
    BadTable("a nameless column", _rows(ROWS, header=HEADER.replace("Weight", "")), ("column(s) 8 of 10", "no name")),
    BadTable(
        "no column of patients", _rows(ROWS, header=HEADER.replace("case,patient", "x,y")), ("no column names the patients", "[table]")
    ),
    BadTable("no outcome columns", _rows(ROWS, header=HEADER.replace("Relapse", "Event")), ("'Relapse'", "lacks", "[targets.rfs]")),
    BadTable("unknown target", _rows(ROWS), ("--target rsf", "rfs, hpv", "Did you mean rfs", "[targets.rsf]"), target="rsf"),
    BadTable("a misspelt column", _rows(ROWS), ("'Wieght'", "lacks", "Did you mean Weight"), toml='[columns]\nWieght = "predictor"\n'),
    BadTable("the outcome as predictor", _rows(ROWS), ('"RFS"', "refused", "target rfs"), toml='[columns]\nRFS = "predictor"\n'),
    BadTable("the centre as predictor", _rows(ROWS), ('"centre"', "refused", "centre-only"), toml='[columns]\ncentre = "predictor"\n'),
    BadTable(
        "nothing to predict with",
        _rows([",".join([*row.split(",")[:3], *row.split(",")[-2:]]) for row in ROWS], header="case,patient,centre,Relapse,RFS"),
        ("no predictor is left", "[columns]"),
    ),
)
