"""The ceiling of a generated cohort: how well the true predictor itself ranks the same patients over the same pairs."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.dataset.case import list_names
from prognosis.errors import FitError

if TYPE_CHECKING:
    from prognosis.cohort import Cohort

COLUMNS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "survival": {"all": ("log_hazard", "log_hazard"), "observed": ("log_hazard_observed", "log_hazard_observed")},
    "binary": {"all": ("hpv_logit_within", "hpv_logit"), "observed": ("hpv_logit_observed_within", "hpv_logit_observed")},
}
"""Of truth.csv, by the target's kind: the score within a centre and the one across centres, with all covariates or the observed ones."""


@dataclass(frozen=True, eq=False)
class Truth:
    """A true predictor's value by patient, within a centre and across centres, shape (n,) each."""

    within: np.ndarray
    across: np.ndarray


def read_truth(path: Path, cohort: Cohort) -> dict[str, Truth]:
    """ "all" and "observed" -> the true predictor of a cohort's patients.

    Raises:
        FitError: the file cannot be read, lacks a column or a patient, or holds something that is no number.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = {row["patient"]: row for row in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise FitError(f"{path}: is no truth.csv of a generated cohort ({type(error).__name__}: {error})") from error
    if lacking := [patient for patient in cohort.patients if patient not in rows]:
        raise FitError(f"{path}: has no row for {list_names(lacking)}. It must be the truth of this very cohort")
    columns = COLUMNS[cohort.target.kind]
    return {name: Truth(*(_column(path, rows, cohort.patients, column) for column in pair)) for name, pair in columns.items()}


def _column(path: Path, rows: Mapping[str, Mapping[str, str]], patients: tuple[str, ...], column: str) -> np.ndarray:
    values = []
    for patient in patients:
        try:
            values.append(float(rows[patient][column]))
        except (KeyError, TypeError, ValueError):
            found = rows[patient].get(column)
            raise FitError(f"{path}: patient {patient}: the column {column} must hold a number, found {found!r}") from None
    return np.array(values)
