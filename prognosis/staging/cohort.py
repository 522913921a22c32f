"""The patients whose T or N stage is known, with their predictors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.dataset.case import list_names
from autoseg.evaluation.answers import BLANK, stage
from prognosis.cohort import Cohort, load_cohort
from prognosis.columns import find
from prognosis.errors import CohortError, FitError
from prognosis.records import Records, one_row_each, read_records
from prognosis.table import Table
from prognosis.targets import Declaration, Target

if TYPE_CHECKING:
    from prognosis.features.table import FeatureTable

UNKNOWN = frozenset({"x", "tx", "nx", "t0", "tis"})
"""What stands where a stage could not be assessed, or there is no primary to stage."""

LEAST_PATIENTS = 2
"""Of a class, one to fit on and one to test on."""


@dataclass(frozen=True)
class Stage:
    """What is staged.

    Args:
        name: also of a folder.
        column: of the table.
        classes: ascending.
        excluded: columns that are settled together with the stage or because of it, and are no predictors.
    """

    name: str
    title: str
    column: str
    classes: tuple[str, ...]
    excluded: tuple[str, ...]

    @property
    def letter(self) -> str:
        """ "T" or "N"."""
        return self.classes[0][0]


_SETTLED = ("M-stage", "Treatment", "Surgery", "Chemotherapy")
STAGES: Mapping[str, Stage] = {
    one.name: one
    for one in (
        Stage("t-stage", "T stage", "T-stage", ("T1", "T2", "T3", "T4"), ("N-stage", *_SETTLED)),
        Stage("n-stage", "N stage", "N-stage", ("N0", "N1", "N2", "N3"), ("T-stage", *_SETTLED)),
    )
}


@dataclass(frozen=True, eq=False)
class Staged:
    """A cohort with its stages.

    Attributes:
        cohort: its own outcome is whether the stage is above the lowest class that enough patients have.
        classes: number of each patient's class in `stage.classes`, (n,).
    """

    stage: Stage
    cohort: Cohort
    classes: np.ndarray

    def count(self) -> dict[str, int]:
        """Class -> patients, in ascending order, with those that nobody has."""
        return {name: int((self.classes == index).sum()) for index, name in enumerate(self.stage.classes)}


def load_staged(path: Path, features: FeatureTable | None, what: Stage, declaration: Declaration) -> Staged:
    """The cohort of a stage. Subdivisions are dropped (N2b is N2); TX, NX, T0 and Tis are not known.

    Raises:
        CohortError: the table has no column of the stage, a text in it that is no stage, or two stages of one patient.
        FitError: fewer than two classes have enough patients.
    """
    records = read_records(path, declaration)
    found = find(records.table.columns, what.column)
    if len(found) != 1:
        raise CohortError(
            f"{path}: has {'no' if not found else 'several'} column(s) {what.column!r}; it has {list_names(records.table.columns)}"
        )
    column = found[0]
    classes = _classes(records, column, what)
    named = replace(records, table=_with_column(records, column, [classes.get(row, "") for row in range(len(records))]))
    first, _ = one_row_each(named, [column])
    counts = Counter(classes[row] for row in first if row in classes)
    usable = [name for name in what.classes if counts[name] >= LEAST_PATIENTS]
    if len(usable) < 2:
        had = ", ".join(f"{name} {counts[name]}" for name in what.classes)
        raise FitError(f"{path}: {what.title}: two classes need {LEAST_PATIENTS} patients each at least, found {had}")
    above = what.classes.index(usable[0]) + 1
    texts = ["" if name is None else str(int(what.classes.index(name) >= above)) for name in map(classes.get, range(len(records)))]
    table = _with_column(records, column, texts)
    target = Target(
        what.name,
        what.title,
        "binary",
        event=column,
        origin="diagnosis",
        excluded=what.excluded,
        why_excluded="it is settled with the stage",
    )
    cohort = load_cohort(table, features, target, declaration)
    by_patient = {records.patient[row]: what.classes.index(classes[row]) for row in first if row in classes}
    return Staged(what, cohort, np.array([by_patient[patient] for patient in cohort.patients]))


def _with_column(records: Records, column: str, texts: Sequence[str]) -> Table:
    return replace(records.table, frame=records.table.frame.assign(**{column: texts}))


def _classes(records: Records, column: str, what: Stage) -> dict[int, str]:
    """Row -> class, of the rows where one is known."""
    classes, wrong = {}, []
    for row, cell in enumerate(records.table.frame[column].tolist()):
        known = stage(cell, what.letter)
        if known is not None:
            classes[row] = known
        elif cell.strip().casefold() not in BLANK | UNKNOWN:
            wrong.append(f"{records.label(row)}: {cell!r}")
    if wrong:
        raise CohortError(
            f"{records.table.path}: column {column!r}: expected are {', '.join(what.classes)} or a blank; found {list_names(wrong)}"
        )
    return classes
