"""The clinical tables of a HECKTOR folder joined by patient, as text: nothing is converted, filled in or guessed."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoseg.dataset.case import list_names
from autoseg.dataset.patients import patient_key, patient_name
from autoseg.dataset.table import Lines, read_lines
from autoseg.errors import DatasetError

PATIENT = "patientid"
CENTRE = ("centerid", "centreid")
OURS = ("case", "patient", "centre", "center")
"""Columns that cases.csv has of its own; a clinical column of such a name would be taken for them."""

TOLD_AT_MOST = 20


@dataclass(frozen=True)
class Clinical:
    """Rows of all tables, joined.

    Args:
        columns: as they are spelt where they stand first, without the patient's.
        rows: `patient_key` -> column -> text; a column that no table gives a patient is left out.
        names: `patient_key` -> the patient's name.
        notes: what a user should know.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]
    names: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def centre_id(self, patient: str) -> str:
        """The patient's CenterID as text ("5" also where the table has 5.0); "" where there is none, or nan."""
        row = self.rows.get(patient_key(patient), {})
        text = next((value for column, value in row.items() if _squeezed(column) in CENTRE), "")
        with suppress(ValueError):
            number = float(text)
            if not math.isfinite(number):
                return ""
            return str(int(number)) if number.is_integer() else text
        return text


def join_tables(paths: Sequence[Path]) -> Clinical:
    """The rows of several tables by patient. A patient may be in some of them only, and a value in one of them only.

    Raises:
        DatasetError: a table has no column PatientID, a column twice, a line without a patient or of the wrong length; or two lines (of one
            table or two) contradict each other: every contradiction is told with both files.
    """
    joined = _Joined()
    problems: list[str] = []
    for path in paths:
        lines = read_lines(path)
        problems += [f"{path.name}: {problem}" for problem in lines.problems]
        wrong = _header_problems(lines.header)
        problems += [f"{path.name}: {problem}" for problem in wrong]
        if not wrong:
            joined.add(path.name, lines, problems)
    if problems:
        told = problems[:TOLD_AT_MOST]
        rest = [f"and {len(problems) - len(told)} more"] if len(problems) > len(told) else []
        folder = paths[0].parent
        raise DatasetError(f"{folder}: the clinical tables cannot be joined:\n" + "\n".join(f"  - {text}" for text in [*told, *rest]))
    return joined.clinical()


class _Joined:
    def __init__(self) -> None:
        self.columns: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.values: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        self.dropped: list[str] = []

    def add(self, table: str, lines: Lines, problems: list[str]) -> None:
        """Takes the lines of a table; a contradiction to what is there goes to `problems`."""
        squeezed = [_squeezed(name) for name in lines.header]
        identifier = squeezed.index(PATIENT)
        if not all(lines.header):
            self.dropped.append(table)
        for number, fields in lines.rows:
            patient = patient_name(fields[identifier])
            if not patient:
                problems.append(f"{table}, row {number}: has no PatientID")
                continue
            key = patient_key(patient)
            self.names.setdefault(key, patient)
            for index, (name, value) in enumerate(zip(lines.header, fields, strict=True)):
                if index != identifier and name:
                    column = self.columns.setdefault(squeezed[index], name)
                    self._put(key, column, value, f"{table} (row {number})", problems)

    def _put(self, key: str, column: str, value: str, source: str, problems: list[str]) -> None:
        known, known_source = self.values[key].get(column, ("", ""))
        if known and value and not _same(known, value):
            problems.append(
                f"patient {self.names[key]}: {column} is {known!r} in {known_source} and {value!r} in {source}. Correct one of them"
            )
        elif not known:
            self.values[key][column] = (value, source)

    def clinical(self) -> Clinical:
        rows = {key: {column: value for column, (value, _) in values.items()} for key, values in self.values.items()}
        notes = [f"columns without a name are left out: {list_names(self.dropped)}"] if self.dropped else []
        return Clinical(tuple(self.columns.values()), {key: rows.get(key, {}) for key in self.names}, dict(self.names), tuple(notes))


def _header_problems(header: Sequence[str]) -> list[str]:
    squeezed = [_squeezed(name) for name in header if name]
    if PATIENT not in squeezed:
        return [f"the first line must name the columns, PatientID among them; found: {', '.join(header) or 'nothing'}"]
    problems = [f"the column {name!r} stands twice" for name, count in Counter(squeezed).items() if count > 1]
    return problems + [f"the column {name!r} has a name that cases.csv needs itself. Rename it" for name in header if name.lower() in OURS]


def _squeezed(name: str) -> str:
    """A column's name without what its spellings differ in: capitals, spaces and underscores."""
    return re.sub(r"[\s_]+", "", name).casefold()


def _same(a: str, b: str) -> bool:
    """Whether two fields say the same: 1 and 1.0 do, since a column with blanks is often written with decimals."""
    if a == b:
        return True
    with suppress(ValueError):
        return float(a) == float(b)
    return False


def name_centres(ids: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Patient -> centre, and notes.

    CenterID says who belongs together; a centre is called as most of its patients' names begin (CHUM-001: CHUM), with its number added
    where two centres would be called the same, or by its number alone. A patient without a CenterID belongs where the others of that name
    do; to nowhere ("") where that is not clear.

    Args:
        ids: patient -> CenterID, "" where there is none.
    """
    prefix = {patient: patient.rpartition("-")[0] for patient in ids}
    members: dict[str, list[str]] = defaultdict(list)
    for patient, number in sorted(ids.items()):
        if number:
            members[number].append(patient)
    majority = {number: _most_common(prefix[patient] for patient in patients) for number, patients in members.items()}
    holders = Counter(majority.values())
    names = {number: _centre_name(number, first, holders[first]) for number, first in majority.items()}
    centres, strangers, lost = {}, [], []
    for patient, number in ids.items():
        if number:
            centres[patient] = names[number]
            if prefix[patient] != majority[number]:
                strangers.append(f"{patient} ({names[number]})")
        elif not prefix[patient] or holders[prefix[patient]] > 1:
            centres[patient] = ""
            lost.append(patient)
        else:
            own = [names[number] for number, first in majority.items() if first == prefix[patient]]
            centres[patient] = own[0] if own else prefix[patient]
    notes = []
    if strangers:
        notes.append(f"{len(strangers)} patient(s) are called as those of another centre; their CenterID counts: {list_names(strangers)}")
    if lost:
        notes.append(f"{len(lost)} patient(s) have no CenterID, and their names do not tell: {list_names(lost)}")
    return centres, tuple(notes)


def _most_common(prefixes: Iterable[str]) -> str:
    counts = Counter(prefixes)
    return min(counts, key=lambda prefix: (-counts[prefix], prefix))


def _centre_name(number: str, prefix: str, holders: int) -> str:
    if not prefix:
        return number
    return prefix if holders == 1 else f"{prefix}-{number}"
