"""The cohort of a target: table, image features and outcomes joined by patient, with a flow in which every row is accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.dataset.case import list_names, near_matches
from prognosis.columns import Kind
from prognosis.errors import CohortError
from prognosis.outcomes import Labels, Outcome, Read, Survival, read_labels, read_survival, require_both
from prognosis.predictors import Group, Predictors, choose, clinical, image_features, join, without_constants
from prognosis.records import Records, centre_notes, one_row_each, read_records
from prognosis.status import Status, status_of
from prognosis.table import Table
from prognosis.targets import Declaration, Target, resolve

if TYPE_CHECKING:
    import pandas as pd

    from prognosis.features.table import FeatureTable

__all__ = ["Cohort", "FlowStep", "Labels", "Survival", "load_cohort"]


@dataclass(frozen=True)
class FlowStep:
    """A step from the table's rows to the cohort.

    Args:
        step: what is asked of a row to stay.
        patients: how many are left after it.
        removed: how many it took out; patients of this step and removed together are the patients of the step before.
        why: what was wrong with them.
        names: of those it took out: patients, or cases where a patient's other scan stays.
    """

    step: str
    patients: int
    removed: int = 0
    why: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Cohort:
    """The patients of whom a target's outcome is known, in the table's order.

    Args:
        centre: one a patient; "" where unknown.
        predictors: index = patients; float64 with nan for numeric columns, object with None for categorical ones.
        kinds: of each column.
        groups: "clinical", "volume" (tumour volumes only), "image" (all other features), "flag".
        status: by patient; "not_predicted" where no feature could be taken from the images: the patient stays.
        flow: the first step counts every row of the table, the last one the patients.
        notes: what a user should know.
    """

    patients: tuple[str, ...]
    centre: tuple[str, ...]
    target: Target
    outcome: Outcome
    predictors: pd.DataFrame
    kinds: Mapping[str, Kind]
    groups: Mapping[str, Group]
    status: Mapping[str, Status]
    flow: tuple[FlowStep, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.patients)


def load_cohort(table: str | Path | Table, features: FeatureTable | None, target: str | Target, declaration: Declaration) -> Cohort:
    """The cohort of a target.

    Args:
        table: cases.csv or another table with a row a patient or a case.
        features: None for a cohort of clinical columns alone.
        target: or its name.
        declaration: what cohort.toml says.

    Raises:
        CohortError: table, features and outcomes do not fit each other, or there is nothing to learn.
        TargetError: the target is not declared or its columns are not there, or an outcome is declared a predictor.
    """
    target = declaration.target(target) if isinstance(target, str) else target
    records = read_records(table, declaration)
    names = [resolve(records.table.columns, name, target, records.table.path) for name in target.outcome_columns]
    columns, notes = choose(records, target, declaration)
    centre_column = [name for name in records.identifiers if declaration.role(name) == "centre"]
    rows, further = one_row_each(records, [*names, *centre_column])
    flow = [FlowStep(f"rows of {records.table.path.name}", len(records))]
    if further:
        scans = tuple(records.case[row] for row in further)
        flow.append(FlowStep("one scan a patient", len(rows), len(scans), "the patient's first case by name counts", scans))
    if features is not None:
        rows = _with_images(records, rows, features, flow)
    read = _read_outcome(records, rows, target, names)
    rows, outcome = _usable(records, rows, read, flow)
    patients = tuple(records.patient[row] for row in rows)
    require_both(target, outcome, patients, str(records.table.path))
    predictors = _predictors(records, rows, columns, features, declaration)
    centre = tuple(records.centre[row] for row in rows)
    return Cohort(
        patients,
        centre,
        target,
        outcome,
        predictors.frame(patients),
        predictors.kinds,
        predictors.groups,
        status_of(features, patients),
        tuple(flow),
        (*records.table.notes, *notes, *read.notes, *predictors.notes, *centre_notes(centre), *_copies(predictors, outcome, patients)),
    )


def _with_images(records: Records, rows: Sequence[int], features: FeatureTable, flow: list[FlowStep]) -> list[int]:
    """The rows whose patients have features; steps tell the others.

    Raises:
        CohortError: images of patients that the table does not know, who are misspelt more often than new.
    """
    measured = {str(name) for name in features.frame.index}
    with_images = measured | set(features.unmeasured)
    known = {records.patient[row] for row in rows}
    unknown = sorted(with_images - known)
    if unknown:
        raise CohortError(
            f"{records.table.path}: has no row for {len(unknown)} of {len(with_images)} patients with images: "
            f"{list_names(unknown)}.{near_matches(unknown[0], sorted(known))} Spell patients the same in both; a patient whose outcome is "
            "not known needs a row too, with blank cells"
        )
    rows = _keep(records, rows, with_images, "images", "the dataset has no images of them", flow)
    reasons = list_names(sorted({features.unmeasured[name] for name in features.unmeasured}))
    return _keep(records, rows, measured, "image features", f"no features: {reasons}", flow)


def _keep(records: Records, rows: Sequence[int], whom: set[str], step: str, why: str, flow: list[FlowStep]) -> list[int]:
    kept = [row for row in rows if records.patient[row] in whom]
    lost = tuple(records.patient[row] for row in rows if records.patient[row] not in whom)
    flow.append(FlowStep(step, len(kept), len(lost), why if lost else "", lost))
    return kept


def _read_outcome(records: Records, rows: Sequence[int], target: Target, names: Sequence[str]) -> Read:
    columns = [records.column(name, rows) for name in names]
    if target.kind == "binary":
        return read_labels(target, columns[0])
    return read_survival(target, columns[0], columns[1], columns[2:])


def _usable(records: Records, rows: Sequence[int], read: Read, flow: list[FlowStep]) -> tuple[list[int], Outcome]:
    left = np.ones(len(rows), dtype=bool)
    for step, why, out in read.unusable:
        left &= ~out
        lost = tuple(records.patient[row] for row, gone in zip(rows, out, strict=True) if gone)
        flow.append(FlowStep(step, int(left.sum()), len(lost), why if lost else "", lost))
    return [row for row, stays in zip(rows, left, strict=True) if stays], read.outcome.select(left)


def _predictors(
    records: Records, rows: Sequence[int], columns: Sequence[str], features: FeatureTable | None, declaration: Declaration
) -> Predictors:
    predictors = clinical(records, rows, columns, {name: declaration.kind(name) for name in columns}, {})
    if features is not None:
        predictors = join(predictors, image_features(features, [records.patient[row] for row in rows]))
    predictors = without_constants(predictors)
    if not predictors.values:
        why = "; ".join(predictors.notes) or "no column has that role, and there are no image features"
        raise CohortError(
            f"{records.table.path}: no predictor is left: {why}. Give columns the role in cohort.toml:\n"
            f'  [columns]\n  "Age" = "predictor"\nThe table has: {list_names(records.table.columns)}'
        )
    return predictors


def _copies(predictors: Predictors, outcome: Outcome, patients: Sequence[str]) -> list[str]:
    """A note where patients have the time and all values of another one: a copy in training tells its test row's outcome."""
    if not isinstance(outcome, Survival) or len(predictors.values) < 3:
        return []
    seen: dict[tuple[object, ...], str] = {}
    pairs = []
    for index, patient in enumerate(patients):
        cells = tuple(str(values[index]) for values in predictors.values.values())
        first = seen.setdefault((float(outcome.time_days[index]), bool(outcome.event[index]), cells), patient)
        if first != patient:
            pairs.append(f"{patient} and {first}")
    if not pairs:
        return []
    what = "patients have the outcome and every value of another one"
    return [f"{len(pairs)} {what}: {list_names(pairs)}. The same person twice? Keep one row"]
