"""What a fit may see: some patients of a cohort, cut out before anything is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from prognosis.models.registry import CENTRE_COLUMN, ESTABLISHED

if TYPE_CHECKING:
    import pandas

    from prognosis.cohort import Cohort, Labels, Survival
    from prognosis.models.pipeline import Kind


@dataclass(frozen=True, eq=False)
class Part:
    """Patients with predictors and outcomes, row by row.

    Attributes:
        frame: predictors and, under CENTRE_COLUMN, the centre.
        kinds, groups: of the columns.
        outcome: of the rows.
        centre: by row, "" where unknown.
        kind: of the target.
    """

    frame: pandas.DataFrame
    kinds: Mapping[str, str]
    groups: Mapping[str, str]
    outcome: Survival | Labels
    centre: np.ndarray
    kind: Kind

    @staticmethod
    def of(cohort: Cohort) -> Part:
        """Every patient of a cohort."""
        centre = np.array(cohort.centre, dtype=object)
        frame = cohort.predictors.assign(**{CENTRE_COLUMN: np.where(centre == "", None, centre)})
        return Part(frame, {**cohort.kinds, CENTRE_COLUMN: "categorical"}, cohort.groups, cohort.outcome, centre, cohort.target.kind)

    def take(self, rows: np.ndarray) -> Part:
        """These rows alone."""
        return replace(self, frame=self.frame.iloc[rows], outcome=self.outcome.select(rows), centre=self.centre[rows])

    def established(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Those of some columns that are expected to matter; see `Penalty`."""
        return tuple(column for column in columns if self.groups.get(column) in ESTABLISHED)

    def strata(self, columns: Sequence[str]) -> np.ndarray | None:
        """What a model of these columns need not explain: the centre, unless it is what the model is about."""
        return None if CENTRE_COLUMN in columns else self.centre

    def __len__(self) -> int:
        return len(self.centre)

    @property
    def happened(self) -> np.ndarray:
        """Whether the event was seen (survival) or the label is positive (binary), by row."""
        return np.asarray(self.outcome.event if self.kind == "survival" else self.outcome.positive, dtype=bool)

    @property
    def time_days(self) -> np.ndarray:
        """Times by row; survival targets only."""
        return np.asarray(self.outcome.time_days, dtype=float)


def events(happened: np.ndarray | Sequence[bool], kind: str) -> int:
    """What limits a conclusion: the events (survival), or the patients of the rarer class (binary)."""
    seen = int(np.sum(happened))
    return seen if kind == "survival" else min(seen, len(happened) - seen)
