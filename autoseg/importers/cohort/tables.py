"""The phantom cohort's tables: the clinical columns as HECKTOR 2025 names them, with what is missing left blank."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from autoseg.importers.cohort.patients import Patients

CLINICAL = (
    "CenterID",
    "Age",
    "Gender",
    "Tobacco Consumption",
    "Alcohol Consumption",
    "Performance Status",
    "Treatment",
    "M-stage",
)
SURVIVAL = ("Relapse", "RFS")
HPV = ("HPV Status",)


def clinical_columns(patients: Patients) -> dict[str, list[str]]:
    """Column -> a text for each patient, blank where missing: `CLINICAL`, then `SURVIVAL` and `HPV`."""
    missing = patients.missing
    return {
        "CenterID": [str(patients.centres[index].number) for index in patients.centre],
        "Age": _texts(patients.age),
        "Gender": _texts(patients.male),
        "Tobacco Consumption": _texts(patients.tobacco, missing["habits"]),
        "Alcohol Consumption": _texts(patients.alcohol, missing["habits"]),
        "Performance Status": _texts(patients.performance, missing["performance"]),
        "Treatment": _texts(patients.treatment),
        "M-stage": [text and f"M{text}" for text in _texts(patients.m_stage, missing["m_stage"])],
        "Relapse": _texts(patients.event, missing["outcome"]),
        "RFS": _texts(patients.time_days, missing["outcome"]),
        "HPV Status": _texts(patients.hpv, missing["hpv"]),
    }


def _texts(values: np.ndarray, missing: np.ndarray | None = None) -> list[str]:
    texts = [str(int(value)) for value in values]
    return texts if missing is None else ["" if gone else text for text, gone in zip(texts, missing, strict=True)]


def task_tables(patients: Patients) -> dict[int, str]:
    """Number of the task -> its table as CSV: 1 everybody, 2 those with follow-up, 3 those with a known HPV status."""
    columns = {"PatientID": patients.names, **clinical_columns(patients)}
    rows = {1: np.full(len(patients), True), 2: ~patients.missing["outcome"], 3: ~patients.missing["hpv"]}
    names = {1: CLINICAL, 2: (*CLINICAL, *SURVIVAL), 3: (*CLINICAL, *HPV)}
    return {task: csv_text(columns, ("PatientID", *names[task]), np.flatnonzero(kept)) for task, kept in rows.items()}


def cases_table(patients: Patients) -> str:
    """cases.csv as the importer writes it: case, patient, centre, and every column under its own name."""
    centres = [patients.centres[index].name for index in patients.centre]
    return csv_text({"case": patients.names, "patient": patients.names, "centre": centres, **clinical_columns(patients)})


def csv_text(columns: Mapping[str, Sequence[Any]], names: Iterable[str] | None = None, rows: Iterable[int] | None = None) -> str:
    """Columns as CSV; numbers keep all digits, nan is blank. `names` and `rows` choose and order what is written."""
    names = list(columns if names is None else names)
    count = len(next(iter(columns.values())))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in range(count) if rows is None else rows:
        writer.writerow("" if isinstance(value := columns[name][row], float) and math.isnan(value) else value for name in names)
    return text.getvalue()
