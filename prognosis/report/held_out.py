"""Held-out predictions beside what happened, as the figures want them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prognosis.errors import PrognosisModelError

CALIBRATION_GROUPS = 3
"""Patients of a fold are put into so many groups of similar predictions."""

FEWEST_A_GROUP = 5
"""A share of fewer patients tells nothing."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """One model's predictions on one rung, a row a patient.

    Attributes:
        patient, centre, fold: by row.
        risk, probability, threshold, cut: as `Prediction` has them; nan where there is none.
        time_days: to the event or the end of follow-up; nan for a binary target.
        happened: whether the event was seen, or the label is positive.
    """

    patient: np.ndarray
    centre: np.ndarray
    fold: np.ndarray
    risk: np.ndarray
    probability: np.ndarray
    threshold: np.ndarray
    cut: np.ndarray
    time_days: np.ndarray
    happened: np.ndarray

    @staticmethod
    def read(path: Path, rung: str, model: str) -> HeldOut:
        """The rows of a rung and model in a predictions.csv.

        Raises:
            PrognosisModelError: the file cannot be read, or lacks a column.
        """
        try:
            with open(path, encoding="utf-8", newline="") as stream:
                rows = [row for row in csv.DictReader(stream) if row["rung"] == rung and row["model"] == model]
            texts = {name: np.array([row[name] for row in rows], dtype=object) for name in ("patient", "centre", "fold")}
            columns = ("risk", "probability", "threshold", "cut", "time_days")
            numbers = {name: np.array([float(row[name] or "nan") for row in rows]) for name in columns}
            return HeldOut(**texts, **numbers, happened=np.array([row["happened"] == "1" for row in rows], dtype=bool))
        except (OSError, KeyError, ValueError) as error:
            raise PrognosisModelError(
                f"{path}: does not hold held-out predictions ({type(error).__name__}: {error}). Fit again with: prognosis fit"
            ) from error

    def __len__(self) -> int:
        return len(self.patient)

    @property
    def folds(self) -> tuple[str, ...]:
        """Names of the folds, in the order of the file."""
        return tuple(dict.fromkeys(self.fold.tolist()))


def risk_groups(held_out: HeldOut) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """ "lower risk" and "higher risk" -> (time in days, event). Each fold's cut is the median risk of its own training patients."""
    high = held_out.risk > held_out.cut
    return {name: (held_out.time_days[rows], held_out.happened[rows]) for name, rows in (("lower risk", ~high), ("higher risk", high))}


def labels_by_fold(held_out: HeldOut) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Fold -> (label, probability)."""
    return {name: (held_out.happened[held_out.fold == name], held_out.probability[held_out.fold == name]) for name in held_out.folds}


def calibration_points(held_out: HeldOut, horizon_days: float | None) -> dict[str, list[tuple[float, float, int]]]:
    """Fold -> (mean predicted, observed, patients) of groups of similar predictions, lowest first.

    Args:
        horizon_days: for survival: observed is one minus the Kaplan-Meier estimate there, and groups whose follow-up ends before are left
            out. None for a binary target: observed is the share of positives.
    """
    points: dict[str, list[tuple[float, float, int]]] = {}
    for name in held_out.folds:
        rows = np.flatnonzero((held_out.fold == name) & np.isfinite(held_out.probability))
        rows = rows[np.argsort(held_out.probability[rows], kind="stable")]
        found = []
        for part in np.array_split(rows, min(CALIBRATION_GROUPS, len(rows) // FEWEST_A_GROUP)) if len(rows) >= FEWEST_A_GROUP else ():
            observed = _observed(held_out, part, horizon_days)
            if np.isfinite(observed):
                found.append((float(held_out.probability[part].mean()), observed, len(part)))
        points[name] = found
    return points


def _observed(held_out: HeldOut, rows: Sequence[int] | np.ndarray, horizon_days: float | None) -> float:
    if horizon_days is None:
        return float(held_out.happened[rows].mean())
    from sksurv.nonparametric import kaplan_meier_estimator

    time, event = held_out.time_days[rows], held_out.happened[rows]
    if time.max() < horizon_days:
        return float("nan")
    at, survival = kaplan_meier_estimator(event, time)
    return float(1 - np.concatenate([[1.0], survival])[np.searchsorted(at, horizon_days, side="right")])
