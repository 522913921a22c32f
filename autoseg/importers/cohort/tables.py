"""The phantom cohort's tables: the clinical columns as each edition of HECKTOR names them, with what is missing left blank."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoseg.importers.cohort.patients import Patients
from autoseg.importers.cohort.recorded import n_stage, t_stage, weight_kg


@dataclass(frozen=True)
class Columns:
    """The columns of an edition's tables.

    Attributes:
        clinical: PatientID and what is known when a patient comes.
        survival, hpv, stages: what is to be predicted, where that is in columns of its own.
        texts: column -> a text for each patient, blank where missing.
    """

    clinical: tuple[str, ...]
    survival: tuple[str, ...]
    texts: Callable[[Patients], dict[str, list[str]]]
    hpv: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()


def _texts_2022(patients: Patients) -> dict[str, list[str]]:
    known = _texts_2025(patients)
    followed = ["0" if missing else "1" for missing in patients.missing["outcome"]]
    return {
        **{name: known[name] for name in ("PatientID", "CenterID", "Age", "Relapse", "RFS")},
        "Task 1": ["1"] * len(patients),
        "Task 2": followed,
        "Gender": ["M" if male else "F" for male in patients.male],
        "Weight": [str(kg) for kg in weight_kg(patients)],
        "Tobacco": known["Tobacco Consumption"],
        "Alcohol": known["Alcohol Consumption"],
        "Performance status": known["Performance Status"],
        "HPV status (0=-, 1=+)": known["HPV Status"],
        "Surgery": ["0"] * len(patients),
        "Chemotherapy": known["Treatment"],
    }


def _texts_2025(patients: Patients) -> dict[str, list[str]]:
    missing = patients.missing
    return {
        "PatientID": patients.names,
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


def _texts_2026(patients: Patients) -> dict[str, list[str]]:
    unstaged = patients.missing["m_stage"]
    stages = {"T-stage": t_stage(patients), "N-stage": n_stage(patients)}
    return _texts_2025(patients) | {
        name: ["" if gone else text for text, gone in zip(texts, unstaged, strict=True)] for name, texts in stages.items()
    }


_HABITS = ("Tobacco Consumption", "Alcohol Consumption")
SURVIVAL = ("Relapse", "RFS")
COLUMNS_2022 = Columns(
    (
        *("PatientID", "Task 1", "Task 2", "CenterID", "Gender", "Age", "Weight", "Tobacco", "Alcohol", "Performance status"),
        *("HPV status (0=-, 1=+)", "Surgery", "Chemotherapy"),
    ),
    SURVIVAL,
    _texts_2022,
)
COLUMNS_2025 = Columns(
    ("PatientID", "CenterID", "Age", "Gender", *_HABITS, "Performance Status", "Treatment", "M-stage"),
    SURVIVAL,
    _texts_2025,
    hpv=("HPV Status",),
)
COLUMNS_2026 = Columns(
    ("PatientID", "CenterID", "Age", "Gender", *_HABITS, "HPV Status"), SURVIVAL, _texts_2026, stages=("T-stage", "N-stage")
)


def _texts(values: np.ndarray, missing: np.ndarray | None = None) -> list[str]:
    texts = [str(int(value)) for value in values]
    return texts if missing is None else ["" if gone else text for text, gone in zip(texts, missing, strict=True)]


def task_tables(patients: Patients) -> dict[int, str]:
    """Number of the task of 2025 -> its table as CSV: 1 everybody, 2 those with follow-up, 3 those with a known HPV status."""
    columns = COLUMNS_2025
    rows = {1: np.full(len(patients), True), 2: ~patients.missing["outcome"], 3: ~patients.missing["hpv"]}
    names = {1: columns.clinical, 2: (*columns.clinical, *columns.survival), 3: (*columns.clinical, *columns.hpv)}
    texts = columns.texts(patients)
    return {task: csv_text(texts, names[task], np.flatnonzero(kept)) for task, kept in rows.items()}


def cases_table(patients: Patients, columns: Columns = COLUMNS_2025) -> str:
    """cases.csv as the importer writes it: case, patient, centre, and every column under its own name."""
    centres = [patients.centres[index].name for index in patients.centre]
    texts = columns.texts(patients)
    names = [name for name in (*columns.clinical, *columns.survival, *columns.hpv, *columns.stages) if name != "PatientID"]
    return csv_text({"case": patients.names, "patient": patients.names, "centre": centres, **{name: texts[name] for name in names}})


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
