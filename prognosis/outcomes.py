"""Outcomes as they are read from a table: for each row known or not, and why; what cannot be meant is an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.dataset.case import list_names
from prognosis.errors import CohortError
from prognosis.targets import DAYS_PER, Target
from prognosis.values import Column, level, numbers

LONGEST_DAYS = 36525.0
"""100 years: longer times are dates in disguise, or have another unit than declared."""
SHORTEST_LONGEST_DAYS = 60.0
"""Where the longest follow-up is shorter than this, the unit is worth a second look."""


@dataclass(frozen=True, eq=False)
class Survival:
    """Times and events of the patients of a cohort.

    Args:
        time_days: float64, shape (patients,), above 0.
        event: bool, shape (patients,): seen at that time; otherwise observation ended then.
    """

    time_days: np.ndarray
    event: np.ndarray

    def __len__(self) -> int:
        return len(self.event)

    def select(self, rows: np.ndarray) -> Survival:
        """The outcome of some of the patients."""
        return Survival(self.time_days[rows], self.event[rows])


@dataclass(frozen=True, eq=False)
class Labels:
    """Which patients of a cohort are positive: bool, shape (patients,)."""

    positive: np.ndarray

    def __len__(self) -> int:
        return len(self.positive)

    def select(self, rows: np.ndarray) -> Labels:
        """The outcome of some of the patients."""
        return Labels(self.positive[rows])


Outcome = Survival | Labels


@dataclass(frozen=True, eq=False)
class Read:
    """An outcome for every row asked for.

    Args:
        outcome: values of rows that are not usable mean nothing.
        unusable: (what to call the step, why, bool array of the rows that it takes out); the arrays are disjoint.
        notes: what a user should know.
    """

    outcome: Outcome
    unusable: tuple[tuple[str, str, np.ndarray], ...]
    notes: tuple[str, ...] = ()


def read_survival(target: Target, event: Column, time: Column, competing: Sequence[Column] = ()) -> Read:
    """Times in days and events; rows without one of both are not usable.

    Raises:
        CohortError: a third value among the events, times that are no numbers, are 0 or less (unless the target excludes these), or are
            longer than 100 years.
    """
    seen = two_values(event, target.positive, target.negative, _other_values(target))
    since = f"a number of {target.unit} since {target.origin or 'the time origin'}"
    days = numbers(time, since) * DAYS_PER[target.unit]
    notes = _note_coding(event, target)
    no_event = np.isnan(seen)
    no_time = ~no_event & np.isnan(days)
    not_at_risk = ~no_event & (days <= 0)
    unusable = [
        (f"{event.name} known", f"{event.name} is blank, so nobody knows whether the event was seen", no_event),
        (f"{time.name} known", f"{time.name} is blank, so nobody knows how long the patient was observed", no_time),
    ]
    if target.not_at_risk == "exclude":
        unusable.append((f"{time.name} above 0", f"not at risk at {target.origin}: {time.name} is 0 or less", not_at_risk))
    elif not_at_risk.any():
        raise time.error(
            np.flatnonzero(not_at_risk).tolist(),
            f"must be {since}, and above 0",
            f"Correct it; or, where the event was there before {target.origin}, leave these patients out and have them counted:\n"
            f'  [targets.{target.name}]\n  not_at_risk = "exclude"',
        )
    usable = ~(no_event | no_time | not_at_risk)
    _check_length(target, time, days, usable, notes)
    _note_competing(target, competing, seen == 1, usable, notes)
    return Read(Survival(days, seen == 1), tuple(unusable), tuple(notes))


def read_labels(target: Target, event: Column) -> Read:
    """Which rows are positive; rows where nothing stands are not usable.

    Raises:
        CohortError: a third value.
    """
    values = two_values(event, target.positive, target.negative, _other_values(target))
    blank = np.isnan(values)
    return Read(Labels(values == 1), ((f"{event.name} known", f"{event.name} is blank, so the patient has no label", blank),))


def two_values(column: Column, positive: str, negative: str, remedy: str) -> np.ndarray:
    """1.0, 0.0, or nan where no value stands, float64; capitals do not matter, and 1.0 is 1.

    Raises:
        CohortError: a third value.
    """
    known = column.known
    cells = [level(cell).casefold() for cell in column.cells]
    yes, no = level(positive).casefold(), level(negative).casefold()
    wrong = [int(index) for index in np.flatnonzero(known) if cells[index] not in (yes, no)]
    if wrong:
        raise column.error(
            wrong,
            f"must be {positive} (seen) or {negative} (not seen), or blank where not known",
            remedy,
        )
    values = np.array([1.0 if cell == yes else 0.0 for cell in cells])
    values[~known] = np.nan
    return values


def _other_values(target: Target) -> str:
    return f'Correct it, or say in cohort.toml which two values it has:\n  [targets.{target.name}]\n  positive = "..."\n  negative = "..."'


def require_both(target: Target, outcome: Outcome, patients: Sequence[str], source: str) -> None:
    """Returns where there is something to learn.

    Raises:
        CohortError: no event or a single one, or a class that fewer than two patients have.
    """
    total = len(outcome)
    if not total:
        raise CohortError(f"{source}: no patient is left for the target {target.name}")
    if isinstance(outcome, Survival):
        events = int(outcome.event.sum())
        if events == 0:
            raise CohortError(
                f"{source}: all {total} patients are censored: the event of the target {target.name} ({target.event} = {target.positive}) "
                "was seen in none, so there is nothing to learn. Check which value counts as the event"
            )
        if events == 1:
            name = patients[int(np.flatnonzero(outcome.event)[0])]
            raise CohortError(
                f"{source}: the event of the target {target.name} was seen in one of {total} patients only ({name}): a model cannot be "
                "both fitted and tested on it. More patients, or longer follow-up, are needed"
            )
        return
    for positive, value in ((True, target.positive), (False, target.negative)):
        having = np.flatnonzero(outcome.positive == positive)
        if len(having) < 2:
            whom = f"only {patients[int(having[0])]} has" if len(having) else "none has"
            raise CohortError(
                f"{source}: target {target.name}: of {total} patients with a known {target.event}, {whom} the value {value}: there are no "
                "two classes to tell apart. Check the values that count, or add patients of the other class"
            )


def _check_length(target: Target, time: Column, days: np.ndarray, usable: np.ndarray, notes: list[str]) -> None:
    if not usable.any():
        return
    too_long = np.flatnonzero(usable & (days > LONGEST_DAYS))
    if len(too_long):
        raise time.error(
            too_long.tolist(),
            f"is more than 100 years when read as {target.unit}",
            "Dates that a spreadsheet shows as numbers? Give the time since "
            f"{target.origin or 'the time origin'}; or correct the unit of the target {target.name}",
        )
    longest = float(days[usable].max())
    if longest < SHORTEST_LONGEST_DAYS:
        notes.append(
            f"{time.name}: the longest time is {longest:.3g} days. Is the unit of the target {target.name} really {target.unit}? "
            "Times are never rescaled by themselves"
        )
    if target.horizon_days is not None and longest < target.horizon_days:
        notes.append(f"{time.name}: the longest time is {longest:.5g} days, shorter than the horizon of {target.horizon_days:.5g} days")


def _note_coding(event: Column, target: Target) -> list[str]:
    if "censor" not in event.name.casefold():
        return []
    return [f"{event.name}: {target.positive} is read as the event, not as censoring. If that is wrong, swap positive and negative"]


def _note_competing(target: Target, competing: Sequence[Column], seen: np.ndarray, usable: np.ndarray, notes: list[str]) -> None:
    for column in competing:
        values = two_values(column, "1", "0", "Write the competing event as 1 and 0")
        censored_by = int((usable & ~seen & (values == 1)).sum())
        blank = [column.labels[index] for index in np.flatnonzero(usable & ~seen & np.isnan(values))]
        notes.append(
            f"{column.name} is a competing event; patients who had it without {target.event}: {censored_by}. They are censored at their "
            "time, so risks and curves are those of a world without it"
        )
        if blank:
            notes.append(f"{column.name} is blank in {len(blank)} rows without {target.event}: {list_names(blank)}")
