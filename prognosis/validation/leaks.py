"""Single columns that know the outcome too well: a follow-up time, a status written down afterwards, an outcome under another name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.evaluation.ranking import Pairs, auc, concordance
from prognosis.errors import FitError
from prognosis.models.encode import absent, numbers, texts
from prognosis.validation.folds import outer_folds
from prognosis.validation.part import Part, events

LIMIT = 0.9
"""A single column with a cross-validated C-index or AUC above this stops the fit."""

ENOUGH_EVENTS = 10
ENOUGH_PAIRS = 20
"""Below these, one column of dozens is above the limit by luck: it is told, and the fit goes on."""


@dataclass(frozen=True)
class Suspect:
    """A column that alone ranks held-out patients better than the limit.

    Attributes:
        how: "its values" or "whether it has a value".
        across, within: held-out pairs of one fold, and those among them that are of one centre.
    """

    column: str
    how: str
    across: Pairs
    within: Pairs

    def words(self, kind: str) -> str:
        """The finding in words."""
        name = "C-index" if kind == "survival" else "AUC"
        return f"{self.column}: a cross-validated {name} of {self.across.index:.3f} from {self.how} alone"


def suspects(part: Part, seed: int) -> tuple[Suspect, ...]:
    """The predictors that exceed the limit, alone, both on all held-out pairs of a fold and, where there are enough, within centres.

    A number is used up or down as the training patients have it, a level by how often they had the event. A column that only tells the
    centre does not count: within centres it tells nothing.
    """
    folds = outer_folds("random", tuple(part.centre), part.happened, seed)
    columns = [column for column in part.groups if column in part.frame.columns]
    found = []
    for column in columns:
        missing = absent(part.frame, column)
        value = numbers(part.frame, column) if part.kinds[column] == "numeric" else texts(part.frame, column)
        found.append(_ranked(part, folds, column, "its values", value, ~missing))
        if 0 < missing.sum() < len(part):
            found.append(
                _ranked(part, folds, column, "whether it has a value", missing.astype(str).astype(object), np.ones(len(part), bool))
            )
    return tuple(suspect for suspect in found if _exceeds(suspect))


def refuse_leaks(part: Part, seed: int) -> tuple[str, ...]:
    """Notes on suspicious columns of a cohort that is too small to tell a leak from luck; () where there are none.

    Raises:
        FitError: a single column ranks held-out patients better than the limit.
    """
    found = suspects(part, seed)
    told = tuple(suspect.words(part.kind) for suspect in found)
    if found and events(part.happened, part.kind) >= ENOUGH_EVENTS:
        names = ", ".join(dict.fromkeys(f'"{suspect.column}" = "post-baseline"' for suspect in found))
        raise FitError(
            f"{'; '.join(told)}. No honest predictor does that: such a column repeats the outcome or was written down after "
            f"it. Nothing is fitted. Look where it comes from, and take it out in cohort.toml:\n  [columns]\n  {names}"
        )
    return tuple(f"{words}: with so few events this may be luck, or a column that repeats the outcome" for words in told)


def _exceeds(suspect: Suspect) -> bool:
    if suspect.across.comparable < ENOUGH_PAIRS or suspect.across.index <= LIMIT:
        return False
    return suspect.within.comparable < ENOUGH_PAIRS or suspect.within.index > LIMIT


def _ranked(part: Part, folds: Sequence, column: str, how: str, value: np.ndarray, known: np.ndarray) -> Suspect:
    across = within = Pairs(0.0, 0)
    for fold in folds:
        train, test = fold.train[known[fold.train]], fold.test[known[fold.test]]
        if not len(train) or not len(test):
            continue
        score = _score(part, value, train, test)
        across += _pairs(part, test, score, None)
        within += _pairs(part, test, score, part.centre[test].tolist())
    return Suspect(column, how, across, within)


def _score(part: Part, value: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    if value.dtype.kind == "f":
        upward = _pairs(part, train, value[train], None)
        return value[test] if upward.comparable == 0 or upward.index >= 0.5 else -value[test]
    rates = {level: _rate(part, train[value[train] == level]) for level in set(value[train])}
    overall = _rate(part, train)
    return np.array([rates.get(level, overall) for level in value[test]])


def _rate(part: Part, rows: np.ndarray) -> float:
    seen = float(part.happened[rows].sum())
    return seen / float(part.time_days[rows].sum()) if part.kind == "survival" else seen / len(rows)


def _pairs(part: Part, rows: np.ndarray, score: np.ndarray, groups: Sequence | None) -> Pairs:
    if part.kind == "survival":
        # Event rates per day are tiny: on the scale of their order, no two of them are tied by their size alone.
        return concordance(part.time_days[rows], part.happened[rows], np.unique(score, return_inverse=True)[1], groups)
    return auc(part.happened[rows], score, groups)
