"""Which columns of a table may predict a target, and their values, typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from autoseg.dataset.case import list_names, near_matches
from prognosis.columns import Kind, telling, tells_hpv
from prognosis.declaration import refused
from prognosis.errors import CohortError, TargetError, together
from prognosis.records import Records
from prognosis.targets import Declaration, Target, means
from prognosis.values import typed

if TYPE_CHECKING:
    import pandas as pd

    from prognosis.features.table import FeatureTable

Group = Literal["clinical", "volume", "image", "flag"]


@dataclass(frozen=True, eq=False)
class Predictors:
    """Typed columns.

    Args:
        values: column -> float64 with nan (numeric) or object of str and None (categorical).
    """

    values: Mapping[str, np.ndarray]
    kinds: Mapping[str, Kind]
    groups: Mapping[str, Group]
    notes: tuple[str, ...] = ()

    def frame(self, patients: Sequence[str]) -> pd.DataFrame:
        """A row a patient."""
        import pandas as pd

        series = {name: pd.Series(values, index=list(patients), dtype=values.dtype) for name, values in self.values.items()}
        return pd.DataFrame(series, index=pd.Index(list(patients), dtype=object, name="patient"))


def choose(records: Records, target: Target, declaration: Declaration) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The clinical columns that may predict a target, in the table's order, and notes on those that may not.

    Raises:
        TargetError: a column is declared a predictor and cannot be one.
        CohortError: cohort.toml names a column that the table lacks.
    """
    columns = records.table.columns
    lacking = [name for name in declaration.roles if name not in columns]
    if lacking:
        hints = [f"cohort.toml names the column {name!r}, which the table lacks.{near_matches(name, columns)}" for name in lacking]
        raise CohortError(f"{records.table.path}: {together(hints)}")
    chosen, nameless, notes = [], [], []
    for column in columns:
        role = declaration.role(column)
        if column in records.identifiers or means(column, target.outcome_columns):
            continue
        if role == "predictor" and (why := _excluded(column, target)):
            notes.append(f"{column}: no predictor of {target.name}: {why}")
        elif role == "predictor":
            if column in declaration.roles and (why := refused(column, declaration, column in declaration.known_at_origin)):
                raise TargetError(f"{declaration.source or 'cohort.toml'}: column {column!r}: {why}")
            chosen.append(column)
        elif role is None:
            nameless.append(column)
    if nameless:
        notes.append(f"not used, since nobody said what they are (give them a role in cohort.toml): {list_names(map(_told, nameless))}")
    return tuple(chosen), tuple(notes)


def _excluded(column: str, target: Target) -> str | None:
    if target.kind == "binary" and tells_hpv(target.event) and tells_hpv(column):
        return "it tells of the HPV status, which is the target"
    return target.why_excluded if means(column, target.excluded) else None


def _told(column: str) -> str:
    told = telling(column)
    return f"{column} (looks like {told[0]})" if told else column


def clinical(
    records: Records, rows: Sequence[int], columns: Sequence[str], kinds: Mapping[str, Kind | None], levels: Mapping[str, Sequence[str]]
) -> Predictors:
    """Columns of some rows of a table, typed.

    Args:
        kinds: None for a column whose values decide.
        levels: column -> the levels that a fitted model knows, {} where there is none.

    Raises:
        CohortError: values that are neither; all columns' in one message.
    """
    values, found, notes, problems = {}, {}, [], []
    for name in columns:
        try:
            values[name], found[name], said = typed(records.column(name, rows), kinds.get(name), levels)
            notes.extend(said)
        except CohortError as error:
            problems.append(str(error))
    if problems:
        raise CohortError(together(problems))
    return Predictors(values, found, dict.fromkeys(values, "clinical"), tuple(notes))


def image_features(features: FeatureTable, patients: Sequence[str]) -> Predictors:
    """The features of some patients; all-nan rows for those without.

    Raises:
        CohortError: a feature is no number or is infinite.
    """
    values = {}
    for name in features.frame.columns:
        try:
            column = features.frame[name].reindex(list(patients)).to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise CohortError(f"features: column {name!r} holds what is no number ({error}). Run prognosis features anew") from None
        infinite = [patients[index] for index in np.flatnonzero(np.isinf(column))]
        if infinite:
            raise CohortError(f"features: column {name!r} is infinite for {list_names(infinite)}. Run prognosis features anew")
        values[name] = column
    return Predictors(values, dict.fromkeys(values, "numeric"), features.groups(), features.notes)


def join(clinical: Predictors, images: Predictors) -> Predictors:
    """Both side by side.

    Raises:
        CohortError: a feature has the name of a clinical column.
    """
    both = sorted(set(clinical.values) & set(images.values))
    if both:
        raise CohortError(f"the column(s) {list_names(both)} are in the table and among the image features. Rename those of the table")
    return Predictors(
        {**clinical.values, **images.values},
        {**clinical.kinds, **images.kinds},
        {**clinical.groups, **images.groups},
        (*clinical.notes, *images.notes),
    )


def without_constants(predictors: Predictors) -> Predictors:
    """Without the columns that hold no or just one value in the whole cohort; a note names each."""
    kept, notes = [], list(predictors.notes)
    for name, values in predictors.values.items():
        there = [value for value in values.tolist() if value is not None and value == value]
        if not there:
            notes.append(f"{name}: holds no value for any patient of the cohort, and is left out")
        elif len(set(there)) == 1:
            notes.append(f"{name}: is {there[0]} for all {len(there)} patients where it is known, and is left out")
        else:
            kept.append(name)
    return Predictors(
        {name: predictors.values[name] for name in kept},
        {name: predictors.kinds[name] for name in kept},
        {name: predictors.groups[name] for name in kept},
        tuple(notes),
    )
