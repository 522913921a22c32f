"""cases.csv: which patient and which centre a case belongs to."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg import files
from autoseg.dataset.case import Case, list_names, near_matches
from autoseg.errors import DatasetError

FILE_NAME = "cases.csv"
NEW_FILE_NAME = "casesTs.csv"
"""The same for the cases of imagesTs; planning and training do not look at it."""

SPELLINGS = {"center": "centre"}


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    case: str
    patient: str
    centre: str
    extra: dict[str, str]


@dataclass(frozen=True)
class Lines:
    """A CSV file taken apart.

    Args:
        header: the columns' names without spaces around them.
        rows: number in the file (the header is 1) and fields of each line that is not blank.
        problems: lines of the wrong length, which are left out of `rows`.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    problems: tuple[str, ...]


def read_lines(path: Path) -> Lines:
    """The lines of a CSV file in UTF-8, with commas or semicolons, fields without spaces around them.

    Raises:
        DatasetError: it cannot be read, is no UTF-8 or no CSV.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is no UTF-8 text (byte {error.start}). Save it as 'CSV UTF-8'") from None
    first = text.partition("\n")[0]
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in first and "," not in first else ",", strict=True))
    except csv.Error as error:
        raise DatasetError(f"{path}: is no valid CSV: {error}") from None
    header = tuple(name.strip() for name in lines[0]) if lines else ()
    rows, problems = [], []
    for number, fields in enumerate(lines[1:], start=2):
        if not any(field.strip() for field in fields):
            continue
        if len(fields) == len(header):
            rows.append((number, tuple(field.strip() for field in fields)))
        else:
            problems.append(f"row {number}: has {len(fields)} fields, the header has {len(header)}")
    return Lines(header, tuple(rows), tuple(problems))


def read_table(path: Path) -> dict[str, Row]:
    """Case -> its row in a CSV file with the columns case, patient, centre (or center) and any others; commas or semicolons.

    Raises:
        DatasetError: no UTF-8, no column `case`, a column or case twice, a line of the wrong length; all in one message.
    """
    lines = read_lines(path)
    header = [_column(name) for name in lines.header]
    if "case" not in header:
        raise DatasetError(f"{path}: the first line must name the columns, 'case' among them; found: {', '.join(header) or 'nothing'}")
    problems = [f"the column {name!r} stands twice" for name in sorted({n for n in header if n and header.count(n) > 1})]
    problems += lines.problems
    rows: dict[str, Row] = {}
    for number, fields in lines.rows:
        record = {name: field for name, field in zip(header, fields, strict=True) if name}
        case = record.pop("case")
        if not case:
            problems.append(f"row {number}: has no case")
        elif case in rows:
            problems.append(f"row {number}: the case {case} stands here for the second time")
        else:
            rows[case] = Row(case, record.pop("patient", ""), record.pop("centre", ""), record)
    if problems:
        raise DatasetError(f"{path}: " + "; ".join(problems))
    return rows


def write_table(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Writes a table that `read_table` reads back.

    Args:
        columns: further columns, in order; a row without one of them gets a blank there.

    Raises:
        ResourceError: the disk is full or failing; the old file is intact.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["case", "patient", "centre", *columns])
    lines.writerows([row.case, row.patient, row.centre, *(row.extra.get(column, "") for column in columns)] for row in rows)
    files.write_text(path, text.getvalue())


def apply_table(cases: Sequence[Case], rows: dict[str, Row], known: Collection[str], problems: list[str], notes: list[str]) -> list[Case]:
    """The cases with patient, centre and further columns from the table.

    Args:
        known: names that may stand in the table without being among the cases (excluded ones).
        problems: gets the cases that the table lacks: without a row nobody knows whose they are.
        notes: gets the rows of no training case, and the cases without a centre where others have one.
    """
    names = [case.name for case in cases]
    missing = [name for name in names if name not in rows]
    unknown = [name for name in rows if name not in set(names) | set(known)]
    if missing:
        hint = near_matches(missing[0], unknown)
        problems.append(
            f"{FILE_NAME}: no row for {len(missing)} case(s): {list_names(missing)}.{hint} "
            "Add a row for each, or leave cases out with --exclude"
        )
    if unknown:
        notes.append(f"{FILE_NAME}: {len(unknown)} row(s) of no training case, not used: {list_names(unknown)}")
    joined = []
    for case in cases:
        row = rows.get(case.name)
        joined.append(replace(case, patient=row.patient or case.name, centre=row.centre, extra=row.extra) if row else case)
    homeless = [case.name for case in joined if not case.centre]
    if homeless and len(homeless) < len(joined):
        notes.append(f"{FILE_NAME}: {len(homeless)} case(s) have no centre: {list_names(homeless)}")
    return joined


def _column(name: str) -> str:
    lower = name.lower()
    return SPELLINGS.get(lower, lower) if lower in {"case", "patient", "centre", *SPELLINGS} else name
