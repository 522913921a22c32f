"""Whose row is whose: patients, cases and centres of a table, with every contradiction named."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.dataset.case import list_names
from prognosis.columns import CASE, CENTRE, PATIENT, first_present
from prognosis.errors import CohortError, together
from prognosis.table import Table, read_table
from prognosis.targets import Declaration
from prognosis.values import MISSING, Column, level


@dataclass(frozen=True, eq=False)
class Records:
    """A table's rows with their identifiers.

    Args:
        patient, centre: one a row; a centre that is not known is "".
        case: one a row; "" where the table has no column for it.
        identifiers: the columns that these came from.
    """

    table: Table
    declaration: Declaration
    patient: tuple[str, ...]
    case: tuple[str, ...]
    centre: tuple[str, ...]
    identifiers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.patient)

    def label(self, row: int) -> str:
        """What names a row in a message."""
        return f"row {self.table.rows[row]} (patient {self.patient[row]})"

    def column(self, name: str, rows: Sequence[int]) -> Column:
        """Some rows of a column, as text with what messages need."""
        cells = self.table.frame[name].tolist()
        return Column(
            name,
            [cells[row] for row in rows],
            [self.label(row) for row in rows],
            self.table.path,
            self.declaration.decimal,
            self.declaration.missing,
        )


def read_records(table: str | Path | Table, declaration: Declaration) -> Records:
    """A table's rows with patient, case and centre.

    Raises:
        CohortError: the columns are not there, a row names nobody, a case stands twice, two spellings of one patient or centre; all in one.
    """
    if not isinstance(table, Table):
        table = read_table(table, delimiter=declaration.delimiter, encoding=declaration.encoding, header_rows=declaration.header_rows)
    case = _column(table, declaration.case, CASE, "case")
    patient = _column(table, declaration.patient, PATIENT, "patient") or case
    centre = _column(table, declaration.centre, CENTRE, "centre")
    if patient is None:
        raise CohortError(
            f"{table.path}: no column names the patients; it has {list_names(table.columns)}. Call it 'patient', or say in cohort.toml:\n"
            '  [table]\n  patient = "..."'
        )
    cases = _cells(table, case)
    patients = tuple(name or case for name, case in zip(_cells(table, patient), cases, strict=True))
    used = tuple(column for column in (case, patient, centre) if column)
    records = Records(table, declaration, patients, cases, _cells(table, centre), tuple(dict.fromkeys(used)))
    problems = [
        *(f"row {table.rows[row]}: names no patient (column {patient!r})" for row, name in enumerate(patients) if not name),
        *_repeated_cases(records),
        *_spellings(patients, records.label, "patients", lambda name: re.sub(r"[\s_\-]+", "-", name.casefold())),
        *_spellings(records.centre, records.label, "centres", lambda name: level(name).casefold()),
    ]
    if problems:
        raise CohortError(f"{table.path}: {together(problems)}")
    return records


def one_row_each(records: Records, must_agree: Iterable[str]) -> tuple[list[int], list[int]]:
    """The row that counts for each patient (the first case by name), and the rows of their further scans.

    Args:
        must_agree: columns in which the rows of one patient may not differ.

    Raises:
        CohortError: a patient stands twice without a case that tells the rows apart, or the rows contradict each other.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(records.patient):
        rows_of[name].append(row)
    problems, first, further = [], [], []
    for name, rows in rows_of.items():
        rows = sorted(rows, key=lambda row: records.case[row])
        if len(rows) > 1 and not all(records.case[row] for row in rows):
            listed = ", ".join(str(records.table.rows[row]) for row in sorted(rows))
            problems.append(f"patient {name} stands in rows {listed}. Keep one; or, for several scans, name each in a column 'case'")
        if len(rows) > 1:
            problems.extend(_contradictions(records, name, rows, must_agree))
        first.append(rows[0])
        further.extend(rows[1:])
    if problems:
        raise CohortError(f"{records.table.path}: {together(problems)}")
    return sorted(first), sorted(further)


def _contradictions(records: Records, name: str, rows: Sequence[int], must_agree: Iterable[str]) -> list[str]:
    problems = []
    for column in must_agree:
        cells = records.table.frame[column]
        values = {row: level(cells.iloc[row]).casefold() for row in rows}
        if len({"" if value in MISSING else value for value in values.values()}) > 1:
            said = ", ".join(f"row {records.table.rows[row]}: {cells.iloc[row]!r}" for row in rows)
            problems.append(f"patient {name}: its rows contradict each other in {column!r} ({said}). Give all of them the same value")
    return problems


def _column(table: Table, declared: str | None, usual: Sequence[str], what: str) -> str | None:
    if declared is None:
        return first_present(table.columns, usual)
    if declared not in table.columns:
        raise CohortError(
            f"{table.path}: cohort.toml says that the column {declared!r} names the {what}; the table has {list_names(table.columns)}. "
            "Correct it under [table]"
        )
    return declared


def _cells(table: Table, column: str | None) -> tuple[str, ...]:
    if column is None:
        return ("",) * len(table.frame)
    return tuple("" if cell.casefold() in MISSING else cell for cell in table.frame[column])


def _repeated_cases(records: Records) -> list[str]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, case in enumerate(records.case):
        if case:
            rows_of[case].append(row)
    return [
        f"the case {case} stands in rows {', '.join(str(records.table.rows[row]) for row in rows)}. Keep one"
        for case, rows in rows_of.items()
        if len(rows) > 1
    ]


def _spellings(names: Sequence[str], label: Callable[[int], str], what: str, folded: Callable[[str], str]) -> list[str]:
    """Names that differ only in capitals, hyphens or decimals: one hospital under two names would stand on both sides of a fold."""
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    for row, name in enumerate(names):
        if name:
            seen[folded(name)].setdefault(name, row)
    return [
        f"the {what} {' and '.join(f'{name!r} ({label(row)})' for name, row in spelt.items())} look like one. Spell them the same, or "
        "make them clearly different"
        for spelt in seen.values()
        if len(spelt) > 1
    ]


def centre_notes(centre: Sequence[str]) -> list[str]:
    """What to know about the centres of a cohort: unknown ones, and those with a single patient."""
    names, counts = np.unique(np.array([name for name in centre if name], dtype=object).astype(str), return_counts=True)
    notes = []
    unknown = sum(not name for name in centre)
    if not len(names):
        notes.append("no centre is known: nothing can be said about a new hospital")
    elif unknown:
        notes.append(f"{unknown} of {len(centre)} patients have no centre")
    if len(names) == 1:
        notes.append(f"all patients are of one centre ({names[0]}): nothing can be said about a new hospital")
    elif single := [str(name) for name, count in zip(names, counts, strict=True) if count == 1]:
        notes.append(f"centre(s) with a single patient: {list_names(single)}; no claim can be made for them")
    return notes
