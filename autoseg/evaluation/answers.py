"""What was known and what was predicted of patients besides their masks, read from tables or from a challenge container's outputs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.dataset.case import list_names
from autoseg.dataset.patients import patient_key
from autoseg.dataset.table import read_lines
from autoseg.errors import DatasetError

IDENTIFIERS = ("patientid", "case", "patient")
"""Columns by which a patient may be found; all that a table has count."""

BLANK = frozenset({"", "na", "n/a", "nan", "none", "null", "unknown"})


@dataclass(frozen=True)
class Question:
    """What is asked of a patient.

    Attributes:
        name: also the option's.
        title: for people.
        columns: names under which a table may hold what is known, without capitals, spaces, hyphens and underscores.
        predicted: those under which `prognosis predict` writes what it says.
        file: in a challenge container's output.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    predicted: tuple[str, ...]
    file: str


RFS = Question("rfs", "RFS", ("rfs", "rfs(days)"), ("predictedrfsrisk",), "rfs.json")
RELAPSE = Question("relapse", "relapse", ("relapse",), (), "")
HPV = Question("hpv", "HPV status", ("hpvstatus", "hpvstatus(0=,1=+)"), ("predictedhpvpositive",), "hpv-status.json")
T_STAGE = Question("t-stage", "T stage", ("tstage",), (), "t-stage.json")
N_STAGE = Question("n-stage", "N stage", ("nstage",), (), "n-stage.json")


def known_values(table: Path, question: Question) -> dict[str, str]:
    """`patient_key` -> what a table says, as it is written; patients of whom it says nothing are left out.

    Raises:
        DatasetError: the table has no column of patients, or none of what is asked.
    """
    return _column(table, question, question.columns)


def predicted_values(place: Path, question: Question) -> dict[str, str]:
    """`patient_key` -> what was predicted, as text; patients without a prediction are left out.

    Args:
        place: a table with PatientID (or case, or patient) and Prediction, the predictions.csv of `prognosis predict`, or a folder with one
            folder a patient that holds what a challenge container wrote.

    Raises:
        DatasetError: it is none of these, a file in it is broken, or a patient has two folders.
    """
    if not place.is_dir():
        return _column(place, question, ("prediction", *question.predicted))
    written: dict[str, Path] = {}
    for path in sorted(place.glob(f"*/{question.file}")):
        first = written.setdefault(patient_key(path.parent.name), path)
        if first != path:
            raise DatasetError(f"{place}: {first.parent.name} and {path.parent.name} are one patient; keep one of the folders")
    if not written:
        raise DatasetError(f"{place}: holds no PATIENT/{question.file}. Name a folder with one folder a patient, or a CSV table")
    values = {patient: _json_value(path) for patient, path in written.items()}
    return {patient: value for patient, value in values.items() if not _is_blank(value)}


def number(text: str) -> float | None:
    """A finite number, or None."""
    with suppress(ValueError):
        value = float(text)
        return value if math.isfinite(value) else None
    return None


def yes_no(text: str) -> str | None:
    """ "1" or "0" for 1, 1.0, true and for 0, 0.0, false; None for anything else."""
    value = number({"true": "1", "false": "0"}.get(text.casefold(), text))
    return {1.0: "1", 0.0: "0"}.get(value) if value is not None else None


def stage(text: str, letter: str) -> str | None:
    """A T or N stage without its subdivision (N2b and N2c are N2, T4a is T4, 3 is T3); None for anything else, also for TX.

    Args:
        letter: "T" or "N".
    """
    match = re.fullmatch(rf"[cp]?{letter}?([0-4])[a-d]?(\.0)?", text.strip(), re.IGNORECASE)
    allowed = {"T": "1234", "N": "0123"}[letter]
    return f"{letter}{match[1]}" if match and match[1] in allowed else None


def _column(table: Path, question: Question, names: Iterable[str]) -> dict[str, str]:
    lines = read_lines(table)
    if lines.problems:
        raise DatasetError(f"{table}: {'; '.join(lines.problems)}")
    header = [_squeezed(name) for name in lines.header]
    identifiers = [header.index(name) for name in IDENTIFIERS if name in header]
    column = next((header.index(name) for name in names if name in header), None)
    if not identifiers or column is None:
        lacking = f"no column of patients ({', '.join(IDENTIFIERS)})" if not identifiers else f"no column of the {question.title}"
        raise DatasetError(f"{table}: has {lacking} ({' or '.join(names)}); it has {list_names(lines.header)}")
    values: dict[str, str] = {}
    for row, fields in lines.rows:
        for key in {patient_key(fields[index]) for index in identifiers} - {""}:
            if _is_blank(fields[column]):
                continue
            if values.setdefault(key, fields[column]) != fields[column]:
                raise DatasetError(f"{table}, row {row}: {question.title} of {key} is {fields[column]!r} here and {values[key]!r} above")
    return values


def _json_value(path: Path) -> str:
    try:
        value: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None
    if isinstance(value, Mapping) and len(value) == 1:
        (value,) = value.values()
    if isinstance(value, bool | int | float | str | None):
        return "" if value is None else str(value)
    raise DatasetError(f"{path}: must hold one value, found {type(value).__name__}")


def _is_blank(text: str) -> bool:
    return text.strip().casefold() in BLANK


def _squeezed(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()
