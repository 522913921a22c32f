"""New patients' columns: what their table says and what was measured, as a fitted model expects it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoseg.dataset.case import list_names, near_matches
from prognosis.columns import find
from prognosis.errors import CohortError
from prognosis.features.case import FEATURES, Measured
from prognosis.models.encode import Levels, Numeric
from prognosis.records import Records, read_records
from prognosis.targets import Declaration, Target
from prognosis.values import Column, typed

if TYPE_CHECKING:
    import pandas as pd

    from prognosis.models.pipeline import Fitted


@dataclass(frozen=True)
class Clinical:
    """The rows of a clinical table that belong to some cases.

    Attributes:
        records: the table; None where there is none.
        rows: case -> its row; cases without one are left out.
        notes: what a user should know: rows without images, cases without a row.
    """

    records: Records | None
    rows: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(path: Path | None, cases: Sequence[str], declaration: Declaration, *, must_match: bool = True) -> Clinical:
        """The rows of a table, found by case, or by patient where the table has no column of cases.

        Args:
            must_match: whether a table without any of these cases is an error, or a note.

        Raises:
            CohortError: the table is not valid, or has none of these cases.
        """
        if path is None:
            return Clinical(None, {}, ("no clinical table: clinical columns have no value",))
        records = read_records(path, declaration)
        by_name = {case or patient: row for row, (case, patient) in enumerate(zip(records.case, records.patient, strict=True))}
        rows = {case: by_name[case] for case in cases if case in by_name}
        without_row = [case for case in cases if case not in by_name]
        without_images = [name for name in by_name if name not in set(cases)]
        if not rows and must_match:
            raise CohortError(
                f"{path}: has no row for any of the {len(cases)} case(s) with images: {list_names(cases)}. It names "
                f"{list_names(by_name)}.{near_matches(cases[0], list(by_name))} Spell them as the images are called"
            )
        notes = list(records.table.notes)
        if without_row:
            notes.append(f"{path.name}: no row for {list_names(without_row)}: their clinical columns have no value")
        if without_images:
            notes.append(f"{path.name}: {len(without_images)} row(s) have no images and are not predicted: {list_names(without_images)}")
        return Clinical(records, rows, tuple(notes))

    def patient(self, case: str) -> str:
        """Who a case is of: by the table, else the case's own name."""
        return self.records.patient[self.rows[case]] if self.records is not None and case in self.rows else case

    def column(self, name: str) -> str | None:
        """The table's column that a name means, in any known spelling; None where it has none or several."""
        found = find(self.records.table.columns, name) if self.records is not None else ()
        return found[0] if len(found) == 1 else None

    def cells(self, name: str) -> Column | None:
        """A column's cells, one a row of `rows`; None where the table has no such column."""
        column = self.column(name)
        return None if self.records is None or column is None else self.records.column(column, list(self.rows.values()))

    def measured(self, target: Target) -> dict[str, str]:
        """Case -> what the table says of a target's own outcome, where it says something."""
        cells = self.cells(target.event)
        if cells is None:
            return {}
        return {case: cell for case, cell, known in zip(self.rows, cells.cells, cells.known, strict=True) if known}


def model_frame(fitted: Fitted, cases: Sequence[str], clinical: Clinical, measured: Mapping[str, Measured]) -> pd.DataFrame:
    """A row a case with the columns of a fitted model; nan or None where there is no value, and nothing is filled in.

    Args:
        cases: the index.
        measured: case -> its features; cases without are nan throughout.

    Raises:
        CohortError: a cell of the table is not of the kind that the model was fitted on.
    """
    import pandas as pd

    parts = {part.name: part for part in fitted.encoder.parts if isinstance(part, Numeric | Levels)}
    columns: dict[str, pd.Series] = {}
    for name in fitted.encoder.columns:
        if name in FEATURES:
            values = [measured[case].values.get(name, math.nan) if case in measured else math.nan for case in cases]
            columns[name] = pd.Series(values, index=list(cases), dtype="float64")
            continue
        values = _cells(clinical, name, parts.get(name))
        kind = "float64" if isinstance(parts.get(name), Numeric) else object
        empty = math.nan if kind == "float64" else None
        columns[name] = pd.Series([values.get(case, empty) for case in cases], index=list(cases), dtype=kind)
    return pd.DataFrame(columns, index=list(cases))


def check_columns(fitted: Fitted, clinical: Clinical) -> tuple[str, ...]:
    """The clinical columns of a model that the table lacks.

    Raises:
        CohortError: as `model_frame`; so that a bad cell is told before hours of segmentation.
    """
    parts = {part.name: part for part in fitted.encoder.parts if isinstance(part, Numeric | Levels)}
    for name in fitted.encoder.columns:
        if name not in FEATURES:
            _cells(clinical, name, parts.get(name))
    return tuple(name for name in fitted.encoder.columns if name not in FEATURES and clinical.column(name) is None)


def _cells(clinical: Clinical, name: str, part: Numeric | Levels | None) -> dict[str, object]:
    """Case -> typed value of a clinical column, by the cases that have a row."""
    cells = clinical.cells(name)
    if cells is None:
        return {}
    if part is None:  # the model only knows whether there is a value
        values: np.ndarray = np.array([cell if known else None for cell, known in zip(cells.cells, cells.known, strict=True)], dtype=object)
    elif isinstance(part, Numeric):
        values, _, _ = typed(cells, "numeric")
    else:
        values, _, _ = typed(cells, "categorical", {cells.name: (*part.levels, part.reference)})
    return dict(zip(clinical.rows, values.tolist(), strict=True))
